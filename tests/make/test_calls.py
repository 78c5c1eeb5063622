"""FORCE, PARAMS and MODEL_VERSION are for one call."""

from __future__ import annotations

from tests.make.conftest import STAGES, Clone


def test_force_reruns_the_verb_that_is_named(done: Clone) -> None:
    assert done.run("train", "FORCE=1") == ["train"]
    assert done.run("train", FORCE="1") == ["train"]
    assert done.run("train", "load", "FORCE=1") == ["train", "load"]
    assert done.run("all") == []


def test_force_on_all_reruns_every_stage(done: Clone) -> None:
    assert done.run("all", "FORCE=1") == STAGES
    assert done.run("all") == []


def test_force_zero_or_empty_forces_nothing(done: Clone) -> None:
    assert done.run("all", "FORCE=0") == []
    assert done.run("all", "FORCE=") == []


def test_a_stage_on_the_way_is_not_told_to_force(done: Clone) -> None:
    done.says("image", "new")
    done.says("deploy", "new")
    done.touch("scripts/image.py")
    done.make("load", "FORCE=1")
    assert [line.split(" ", 2)[2].split(" PARAMS")[0] for line in done.lines()] == [
        "scripts.image FORCE=",
        "scripts.deploy FORCE=",
        "scripts.smoke FORCE=",
        "scripts.load FORCE=1",
    ]


def test_params_train_again_and_are_forgotten(done: Clone) -> None:
    params = "alpha=0.1 note='$$x (y) #z'"
    done.says("train", "other")
    done.make("train", f"PARAMS={params}")
    assert done.lines() == [
        "python -m scripts.train FORCE= PARAMS=alpha=0.1 note='$x (y) #z' MODEL_VERSION="
    ]
    assert done.run("register") == ["evaluate"]
    assert done.run("all") == ["report"]


def test_params_come_from_the_environment_too(done: Clone) -> None:
    done.make("train", PARAMS="a=$b")
    assert "PARAMS=a=$b " in done.lines()[0]


def test_params_reach_train_through_a_later_verb(done: Clone) -> None:
    assert done.run("register", "PARAMS=alpha=2") == ["train"]
    assert done.run("data", "PARAMS=alpha=2") == []
    assert done.run("register") == []


def test_model_version_packages_and_deploys_that_version_once(done: Clone) -> None:
    done.says("image", "version 3")
    done.says("deploy", "version 3")
    assert done.run("deploy", "MODEL_VERSION=3") == ["image", "deploy"]
    assert done.run("deploy") == []
    assert done.run("all") == ["smoke", "load", "report"]
    assert done.run("image", MODEL_VERSION="3") == ["image"]


def test_model_version_needs_no_training_when_the_records_are_gone(done: Clone) -> None:
    done.make("clean")
    assert done.run("deploy", "MODEL_VERSION=3") == ["image", "deploy"]
    assert done.run("deploy") == [*STAGES[:4], "image"]


def test_model_version_with_all_keeps_the_order(clone: Clone) -> None:
    assert clone.run("-j4", "all", "MODEL_VERSION=3") == STAGES
