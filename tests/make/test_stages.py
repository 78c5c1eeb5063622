"""What runs, and what does not, when something changed."""

from __future__ import annotations

import pytest

from tests.make.conftest import STAGES, Clone


def after(stage: str) -> list[str]:
    """The stage and all that follow it."""
    return STAGES[STAGES.index(stage) :]


def test_a_fresh_clone_runs_every_stage_once_in_order(clone: Clone) -> None:
    assert clone.run("all") == STAGES


def test_a_second_all_runs_nothing(done: Clone) -> None:
    assert done.run("all") == []
    assert done.run("load") == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_verb_does_what_is_missing_before_it_and_nothing_after(clone: Clone, stage: str) -> None:
    assert clone.run(stage) == STAGES[: STAGES.index(stage) + 1]


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("data/rows.csv", ["data"]),
        ("model/train.py", ["data", "train"]),
        ("model/deep/er/table.csv", ["data", "train"]),
        ("docker/locks/toolbox.txt", ["train"]),
        ("scoring/score.py", ["image"]),
        ("docker/Dockerfile", ["image"]),
        ("docker/fetch.sh", ["image"]),
        ("docker/locks/scoring-linear.txt", ["image"]),
        ("docker/locks/scoring.txt", ["image"]),
        ("docker/locks/scoring-sklearn.txt", ["image"]),
        *[(f"scripts/{stage}.py", [stage]) for stage in STAGES],
    ],
)
def test_a_touched_file_reruns_its_readers_and_nothing_after_them(
    done: Clone, file: str, stages: list[str]
) -> None:
    done.touch(file)
    assert done.run("all") == stages
    assert done.run("all") == []


@pytest.mark.parametrize(
    ("stage", "rerun"),
    [
        ("data", STAGES),
        ("train", after("train")),
        ("evaluate", after("evaluate")),
        ("register", after("register")),
        ("image", after("image")),
        ("deploy", after("deploy")),
        ("smoke", ["smoke", "report"]),
        ("load", ["load", "report"]),
        ("report", ["report"]),
    ],
)
def test_a_changed_record_reruns_what_reads_it(done: Clone, stage: str, rerun: list[str]) -> None:
    for each in STAGES:
        done.says(each, f"new since {stage}")
    expected = [each for each in STAGES if each in rerun]
    if stage in ("smoke", "load"):
        done.says("report", "")
    done.touch(f"scripts/{stage}.py")
    assert done.run("all") == expected
    assert done.run("all") == []


def test_documents_and_caches_are_no_inputs(done: Clone) -> None:
    done.write("model/README.md", "text")
    done.write("model/__pycache__/train.cpython-311.pyc", "code")
    done.write("scoring/.mypy_cache/x.json", "{}")
    assert done.run("all") == []


def test_a_new_or_removed_source_file_counts(done: Clone) -> None:
    done.write("model/extra.py", "")
    assert done.run("all") == ["data", "train"]
    done.remove("model/extra.py")
    assert done.run("all") == ["data", "train"]
    assert done.run("all") == []


def test_a_source_file_with_a_space_in_its_name(done: Clone) -> None:
    done.write("model/some table.csv", "1")
    assert done.run("all") == ["data", "train"]
    assert done.run("all") == []
    done.write("model/some table.csv", "2")
    assert done.run("all") == ["data", "train"]


def test_a_missing_record_is_made_again(done: Clone) -> None:
    done.remove("build/local/train.json")
    assert done.run("train") == ["train"]
    done.remove("build/local/smoke.json")
    # Smoke comes before load; load does not read its record.
    assert done.run("load") == ["evaluate", "smoke"]


def test_the_data_file_may_lie_anywhere(clone: Clone) -> None:
    name = "data/it's 100% $(new) #1: rows.csv"
    clone.write(name, "a\n1\n")
    clone.write(".env", f'DATA_PATH="{name}"\n')
    assert clone.run("train") == ["data", "train"]
    assert clone.run("train") == []
    clone.touch(name)
    assert clone.run("train") == ["data"]


def test_a_missing_data_file_is_left_to_the_verb_to_explain(done: Clone) -> None:
    done.remove("data/rows.csv")
    done.fails("data", 2)
    failed = done.make("all", ok=False)
    assert "No rule to make target" not in failed.stderr
    assert "Error 2" in failed.stderr
    assert done.calls() == ["data", "report"]


def test_clean_forgets_the_records_only(done: Clone) -> None:
    done.write("build/mlflow/mlflow.db", "registry")
    done.make("clean")
    assert not (done.path / "build/local").exists()
    assert (done.path / "build/mlflow/mlflow.db").exists()
    assert done.run("all") == STAGES


def test_clean_and_all_in_one_call(done: Clone) -> None:
    assert done.run("clean", "all") == STAGES
    assert done.run("all") == []
    done.fails("image")
    done.make("clean", "all", ok=False)
    assert done.calls() == [*STAGES[:5], "report"]


def test_an_image_made_without_an_engine_is_made_again_once_there_is_one(clone: Clone) -> None:
    clone.write("fake/where", "venv\n")
    clone.says("image", '", "engine": "none')
    assert clone.run("image") == STAGES[:5]
    assert clone.run("image") == []
    clone.write("fake/where", "here\n")
    assert clone.run("image", SLIPWAY_ENGINE="none") == []
    assert clone.make("-n", "image", SLIPWAY_ENGINE="docker").stdout.count("scripts.image") == 1
    clone.write("fake/where", "container\n")
    clone.says("image", '", "engine": "docker')
    assert clone.run("image") == ["image"]
    clone.remove("fake/where")
    # Asked only where it matters: the runner would now fail to say where.
    assert clone.run("image") == []


def test_after_a_rollback_smoke_and_load_count_as_undone(done: Clone) -> None:
    done.write("build/local/deploy.json", "rolled back\n")
    assert done.run("all") == ["smoke", "load", "report"]
