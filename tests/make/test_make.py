"""make itself: help, flags, failures, two at once, odd places."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.make.conftest import ROOT, STAGES, Clone

MAKEFILE = (ROOT / "Makefile").read_text()


def verbs() -> list[str]:
    """The verbs that the Makefile knows, from its lists."""
    lists = re.findall(r"^(STAGES|SERVICE|PLACE|UPKEEP|PROJECT) := (.*)", MAKEFILE, re.MULTILINE)
    assert len(lists) == 5
    return ["help", "all", *" ".join(words for _, words in lists).split()]


def recipe(stage: str) -> list[str]:
    stamp = f"build/local/.stamps/{stage}"
    return [
        f"rm -f {stamp} build/local/outcome.json",
        f"docker/run.sh python -m scripts.{stage}",
        f"touch {stamp}",
    ]


def test_every_verb_is_in_help_with_one_line(clone: Clone) -> None:
    shown = clone.make("help").stdout
    listed = re.findall(r"^  ([a-z-]+) {2,}\S", shown, re.MULTILINE)
    assert sorted(listed) == sorted(verbs())


def test_plain_make_is_help(clone: Clone) -> None:
    assert clone.make().stdout == clone.make("help").stdout


def test_every_verb_is_documented() -> None:
    documents = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]
    text = "\n".join(file.read_text() for file in documents if file.exists())
    missing = [verb for verb in verbs() if not re.search(rf"make {verb}\b", text)]
    assert missing == []


def test_every_file_the_makefile_names_exists() -> None:
    for name in re.findall(r"(?:scripts|docker|make|\.devcontainer)/[\w/.-]+\w", MAKEFILE):
        assert (ROOT / name).exists() or name.endswith("scripts."), name
    for stage in STAGES:
        assert (ROOT / f"scripts/{stage}.py").exists()


def test_help_shows_the_values_in_force_and_no_secret(clone: Clone) -> None:
    clone.write(".env", "LOAD_USERS=33\nSCORING_KEY='topsecret'\nMODEL_NAME=\"a\x1b[31m\"\n")
    shown = clone.make("help", "LOAD_P95_MS=44", GATE_MARGIN="0.5").stdout
    for name, value, origin in [
        ("LOAD_USERS", "33", ".env"),
        ("LOAD_P95_MS", "44", "environment"),
        ("GATE_MARGIN", "0.5", "environment"),
        ("DATA_PATH", "data/rows.csv", "model/defaults.env"),
        ("SCORING_KEY", "set", ".env"),
    ]:
        assert re.search(rf"  {name} +{re.escape(value)}  \({re.escape(origin)}\)$", shown, re.M)
    assert re.search(r"  SP_APP_SECRET +unset$", shown, re.M)
    assert "topsecret" not in shown
    assert "\x1b" not in shown
    for name in re.findall(r"^([A-Z]\w*)=", (ROOT / ".env.example").read_text(), re.M):
        assert re.search(rf"^  {name} ", shown, re.M)


def test_help_starts_nothing_and_changes_nothing(done: Clone) -> None:
    before = done.snapshot()
    # Neither Python nor docker is on this PATH.
    bare = done.path.parent / "bare"
    bare.mkdir()
    for tool in ("make", "bash", "sh", "env", "awk", "cat"):
        (bare / tool).symlink_to(shutil.which(tool) or "")
    done.make("help", PATH=str(bare))
    assert done.snapshot() == before
    assert done.calls() == []


def test_n_shows_the_whole_chain_and_changes_nothing(clone: Clone) -> None:
    before = clone.snapshot()
    shown = clone.make("-n", "all").stdout.splitlines()
    chain = [line for stage in STAGES for line in recipe(stage)]
    assert shown == ["mkdir -p build/local/.stamps", *chain]
    assert clone.snapshot() == before


def test_n_shows_what_is_left_to_do(done: Clone) -> None:
    def shown(*arguments: str) -> list[str]:
        before = done.snapshot()
        lines = done.make("-n", *arguments).stdout.splitlines()
        assert done.snapshot() == before
        return [line for line in lines if "Nothing to be done" not in line]

    assert shown("all") == []
    assert shown("all", "LOAD_USERS=3") == recipe("load")
    assert shown("train", "FORCE=1") == recipe("train")
    done.touch("data/rows.csv")
    assert shown("data") == recipe("data")
    assert shown("clean") == ["rm -rf build/local"]
    assert shown("lint") == ["docker/run.sh make/lint.sh"]
    assert done.calls() == []


def test_q_tells_whether_all_is_done(done: Clone) -> None:
    assert done.make("-q", "all", ok=None).returncode == 0
    done.touch("data/rows.csv")
    assert done.make("-q", "all", ok=None).returncode == 1
    assert done.calls() == []


def test_t_is_refused(done: Clone) -> None:
    assert "make -t" in done.make("-t", "all", ok=False).stderr


def test_s_says_nothing(done: Clone) -> None:
    done.touch("data/rows.csv")
    quiet = done.make("-s", "all")
    assert quiet.stdout == quiet.stderr == ""
    assert done.calls() == ["data"]


def test_b_does_everything_again(done: Clone) -> None:
    assert done.run("-B", "train") == ["data", "train"]
    assert done.run("-B", "all") == STAGES
    assert done.run("all") == []


def test_j_keeps_the_order(clone: Clone) -> None:
    ran = clone.make("-j4", "all")
    assert clone.calls() == STAGES
    assert "jobserver" not in ran.stderr
    assert clone.run("-j4", "all") == []


def test_make_warns_of_nothing(clone: Clone) -> None:
    ran = clone.make("all")
    assert ran.stderr == ""


@pytest.mark.parametrize(
    ("given", "meant"), [("LOAD_USER=5", "LOAD_USERS"), ("PARAM=alpha=1", "PARAMS")]
)
def test_a_misspelt_setting_on_the_command_line_is_refused(
    clone: Clone, given: str, meant: str
) -> None:
    failed = clone.make("load", given, ok=False)
    assert f"no setting {given.partition('=')[0]}; did you mean {meant}?" in failed.stderr
    assert clone.calls() == []
    clone.make("load", "OF_MY_OWN=1")


@pytest.mark.parametrize(("word", "meant"), [("trian", "train"), ("al", "all"), ("lod", "load")])
def test_an_unknown_verb_names_the_near_ones(clone: Clone, word: str, meant: str) -> None:
    failed = clone.make("data", word, ok=False)
    assert failed.returncode == 2
    assert f"no verb {word}" in failed.stderr
    assert meant in failed.stderr
    assert "make help" in failed.stderr
    assert clone.calls() == []


def test_an_unknown_verb_may_hold_anything(clone: Clone) -> None:
    failed = clone.make("it's;$$(touch x)`touch y`", ok=False)
    assert "no verb" in failed.stderr
    assert not (clone.path / "x").exists()
    assert not (clone.path / "y").exists()


@pytest.mark.parametrize("verb", ["data", "deploy", "tests", "docker"])
def test_a_folder_of_the_same_name_is_no_verb_done(clone: Clone, verb: str) -> None:
    (clone.path / verb).mkdir(exist_ok=True)
    done = clone.make("-n", verb, ok=None)
    assert ("scripts." in done.stdout) is (verb in STAGES)


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_a_failed_stage_ends_all_but_for_the_report(clone: Clone, stage: str) -> None:
    clone.fails(stage, 3)
    failed = clone.make("all", ok=False)
    ran = STAGES[: STAGES.index(stage) + 1]
    assert failed.returncode == 2
    assert f".stamps/{stage}] Error 3" in failed.stderr
    assert clone.calls() == [*ran, "report"]
    clone.succeeds(stage)
    assert clone.run("all") == STAGES[STAGES.index(stage) :]
    assert clone.run("all") == []


def test_a_failed_stage_outside_all_makes_no_report(clone: Clone) -> None:
    clone.fails("train")
    clone.make("register", ok=False)
    assert clone.calls() == ["data", "train"]


def test_a_report_of_a_failure_is_not_taken_for_done(done: Clone) -> None:
    done.touch("scripts/load.py")
    done.fails("load", 3)
    done.make("all", ok=False)
    assert done.calls() == ["load", "report"]
    done.succeeds("load")
    # The load record is as it was; the page that told of the failure is made again all the same.
    assert done.run("all") == ["load", "report"]


def test_k_changes_nothing_in_the_chain(clone: Clone) -> None:
    clone.fails("evaluate")
    clone.make("-k", "all", ok=False)
    assert clone.calls() == ["data", "train", "evaluate", "report"]


def test_paths_with_spaces(tmp_path: Path) -> None:
    path = tmp_path / "a clone's $HOME (1)"
    path.mkdir()
    clone = Clone(path)
    clone.populate()
    assert clone.run("all") == STAGES
    assert clone.run("all") == []
    clone.make("clean")


def test_make_from_elsewhere(done: Clone) -> None:
    there = subprocess.run(
        ["make", "-C", str(done.path), "all"],
        cwd="/",
        env=done.environment({}),
        capture_output=True,
        text=True,
    )
    assert there.returncode == 0
    assert done.calls() == []
    lost = subprocess.run(
        ["make", "-f", str(done.path / "Makefile")],
        cwd=done.path.parent,
        env=done.environment({}),
        capture_output=True,
        text=True,
    )
    assert lost.returncode == 2
    assert "-C" in lost.stderr


def start(clone: Clone, *arguments: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["make", *arguments],
        cwd=clone.path,
        env=clone.environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(file: Path) -> None:
    until = time.monotonic() + 20
    while not file.exists() or not file.read_text():
        assert time.monotonic() < until, f"{file} never came"
        time.sleep(0.02)


def test_two_at_once_take_turns(clone: Clone) -> None:
    first, second = start(clone, "all"), start(clone, "all")
    for one in (first, second):
        assert one.wait(60) == 0, one.communicate()
        one.communicate()
    assert clone.calls() == STAGES


def test_a_second_make_gives_up_after_lock_wait_and_says_who_holds_it(clone: Clone) -> None:
    clone.write("fake/train.pause", "")
    first = start(clone, "train")
    wait_for(clone.path / "fake/train.pid")
    clone.write(".env", "LOCK_WAIT=0\n")
    refused = clone.make("all", ok=False)
    assert refused.returncode == 2
    assert "make train" in refused.stderr
    assert "LOCK_WAIT" in refused.stderr
    # What only looks needs no lock.
    assert clone.make("-n", "all").returncode == 0
    clone.make("help")
    clone.make("status")
    os.killpg(first.pid, signal.SIGTERM)
    first.communicate(timeout=20)


@pytest.mark.parametrize("verb", ["all", "train"])
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_stage_and_nothing_is_taken_for_done(
    clone: Clone, verb: str, kill: signal.Signals
) -> None:
    clone.write("fake/train.pause", "")
    running = start(clone, verb)
    wait_for(clone.path / "fake/train.pid")
    stage = int((clone.path / "fake/train.pid").read_text())
    if kill == signal.SIGINT:
        os.killpg(running.pid, kill)
    else:
        running.send_signal(kill)
    running.communicate(timeout=20)
    assert running.returncode != 0
    with pytest.raises(ProcessLookupError):
        os.kill(stage, 0)
    assert clone.calls() == ["data", "train"]
    clone.remove("fake/train.pause")
    assert clone.run("train") == ["train"]


def test_a_lock_held_for_another_clone_does_not_count(clone: Clone) -> None:
    elsewhere = str(clone.path.parent)
    assert clone.run("data", SLIPWAY_LOCKED=elsewhere) == ["data"]
    assert (clone.path / "build/.lock").exists()


def test_an_old_make_is_refused_with_the_mend(clone: Clone) -> None:
    refused = clone.make("MAKE_VERSION=3.81", ok=False)
    assert "brew install make" in refused.stderr
    assert "3.81" in refused.stderr


@pytest.mark.parametrize(
    ("verb", "command"),
    [
        *[(verb, f"python -m scripts.{verb}") for verb in ("status", "rollback", "ui", "logs")],
        *[
            (verb, f"python -m scripts.{verb.replace('-', '_')}")
            for verb in (
                *("down", "login", "what-if", "provision", "destroy"),
                *("publish-pipeline", "run-pipeline"),
            )
        ],
        ("doctor", "python -m scripts.doctor"),
        ("shell", "bash"),
        ("test", 'python -m pytest -n 2 --dist loadgroup -m "not slow and not azure"'),
        ("lint", "make/lint.sh"),
        ("format", "make/format.sh"),
        ("lock", "docker/lock.sh"),
        ("audit", "python -m scripts.audit"),
    ],
)
def test_other_verbs_are_one_command(clone: Clone, verb: str, command: str) -> None:
    assert clone.make("-n", verb).stdout == f"docker/run.sh {command}\n"


def test_what_needs_the_azure_cli_says_so_to_the_runner(clone: Clone) -> None:
    for verb in ("test-azure", "sandbox"):
        assert clone.make("-n", verb).stdout.startswith("PLATFORM=azure docker/run.sh python -m ")


def test_the_full_tests_are_those_of_azure_too(clone: Clone) -> None:
    ours, azure = clone.make("-n", "test-full").stdout.splitlines()
    assert ours == 'docker/run.sh python -m pytest -n 2 --dist loadgroup -m "not azure"'
    assert azure.startswith("PLATFORM=azure docker/run.sh python -m pytest ")
    assert azure.endswith(" -m azure")


def test_the_real_tree_can_be_planned() -> None:
    planned = subprocess.run(
        ["make", "-n", "all", "PLATFORM=local", "LOCK_WAIT=1"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert planned.returncode == 0, planned.stderr
