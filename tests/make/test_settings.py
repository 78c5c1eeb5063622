"""Settings are inputs: a change reruns the verbs that read it, whichever layer it is made in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.make.conftest import ROOT, STAGES, Clone


def read_by(*, platform: str = "local") -> list[tuple[str, list[str]]]:
    """Each setting with the stages in its `Read by:` list; Azure's own are nothing elsewhere."""
    found, about, group = [], "", ""
    for line in (ROOT / ".env.example").read_text().splitlines():
        if line.startswith("## "):
            group = line
        elif line.startswith("# "):
            about += f" {line[2:]}"
        elif name := re.match(r"[A-Z]\w*", line):
            verbs = re.search(r"Read by: ([^.]*)\.", about)
            stages = [v for v in verbs[1].split(", ") if v in STAGES] if verbs else []
            if re.search("Azure: (training|deployment)", group) and platform == "local":
                stages = []
            found.append((name[0], stages))
        if not line.startswith("# "):
            about = ""
    return found


@pytest.mark.parametrize(("name", "stages"), [pair for pair in read_by() if pair[1]])
def test_a_changed_setting_reruns_its_readers(done: Clone, name: str, stages: list[str]) -> None:
    value = "data/other.csv" if name == "DATA_PATH" else "7"
    done.write("data/other.csv", "")
    done.write(".env", f"{name}={value}\n")
    assert done.run("all") == stages
    assert done.run("all") == []
    assert done.run("all", **{name: value}) == []
    assert done.run("all", f"{name}={value}") == []


@pytest.mark.parametrize("name", [name for name, stages in read_by() if not stages])
def test_other_settings_rerun_nothing(done: Clone, name: str) -> None:
    if name != "PLATFORM":
        assert done.run("all", **{name: "venv" if name == "RUNNER" else "7"}) in ([], ["deploy"])


def test_every_layer_counts_and_an_empty_value_is_unset(done: Clone) -> None:
    done.write("model/defaults.env", "DATA_PATH=data/rows.csv\nMODEL_NAME=tiny\nLOAD_USERS=2\n")
    assert done.run("all") == ["load"]
    done.write(".env", "LOAD_USERS=3\n")
    assert done.run("all") == ["load"]
    assert done.run("all", LOAD_USERS="4") == ["load"]
    assert done.run("all", "LOAD_USERS=5", LOAD_USERS="4") == ["load"]
    assert done.run("all", LOAD_USERS="5") == []
    done.write(".env", "LOAD_USERS=\n")
    assert done.run("all", LOAD_USERS="") == ["load"]
    assert done.run("all", LOAD_USERS="2") == []
    assert done.run("all", LOAD_USERS="02") == ["load"]


def test_only_the_settings_of_verbs_on_the_way_are_noted(done: Clone) -> None:
    assert done.run("train", LOAD_USERS="99") == []
    assert done.run("all") == []


def test_a_service_in_a_process_is_another_deployment(done: Clone) -> None:
    assert done.run("all", RUNNER="here") == []
    assert done.run("all", RUNNER="venv") == ["deploy"]


def test_of_a_secret_only_a_hash_is_kept(done: Clone) -> None:
    secret = "p$(x)'a ss\"word#"
    assert done.run("all", SCORING_KEY=secret) == ["deploy", "smoke", "load", "report"]
    assert done.run("all", SCORING_KEY=secret) == []
    assert done.run("all", SCORING_KEY=secret + "!") == ["deploy", "smoke", "load", "report"]
    done.make("-n", "all", SCORING_KEY=secret)
    for file in (done.path / "build").rglob("*"):
        assert not file.is_file() or secret not in file.read_text()
    assert "sha256:" in (done.path / "build/local/.settings/deploy").read_text()
    assert (done.path / "build/local/.settings/deploy").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "line",
    [
        "MODEL_NAME='two words'",
        'MODEL_NAME="a # b"',
        "MODEL_NAME=a$b$(c)${d}",
        "MODEL_NAME=`date`",
        "export MODEL_NAME = x # comment",
        "MODEL_NAME=one\r\nMODEL_NAME=two\r",
        'MODEL_NAME="two\nlines"',
        "MODEL_NAME=a%20b",
        "MODEL_NAME=,(),$,)",
        "MODEL_NAME=né\u2003x",
    ],
)
def test_any_value_passes_through_make(done: Clone, line: str) -> None:
    done.write(".env", line + "\n")
    ran = done.run("train")
    assert ran == ["data", "train"]
    assert done.run("train") == []


@pytest.mark.parametrize(
    ("name", "value", "should"),
    [("PLATFORM", "lokal", "local or azure"), ("LOCK_WAIT", "10 min", "whole seconds")],
)
def test_a_setting_that_make_needs_itself_is_checked(
    clone: Clone, name: str, value: str, should: str
) -> None:
    clone.write(".env", f"{name}={value}\n")
    failed = clone.make("all", ok=False)
    assert failed.returncode == 2
    for said in (name, should, "(from .env)"):
        assert said in failed.stderr
    assert clone.calls() == []
    assert "lokal" in clone.make("help").stdout or name == "LOCK_WAIT"


def test_records_of_another_platform_lie_apart(done: Clone) -> None:
    shown = done.make("-n", "data", PLATFORM="azure", WORKSPACE_NAME="ws-1").stdout
    assert "build/azure/ws-1/.stamps/data" in shown


def test_env_example_is_grouped_explained_and_plain() -> None:
    text = (ROOT / ".env.example").read_text()
    block = ""
    for line in text.splitlines():
        assert len(line) <= 110, line
        if line.startswith("#"):
            block = line
        elif line:
            assert block, f"{line} has no comment"
            assert re.fullmatch(r"[A-Z][A-Z0-9_]*=[A-Za-z0-9._/-]*", line), line
        else:
            block = ""
    names = re.findall(r"^([A-Z][A-Z0-9_]*)=", text, re.MULTILINE)
    assert len(names) == len(set(names))


def test_every_verb_in_a_read_by_list_exists() -> None:
    makefile = Path(ROOT / "Makefile").read_text()
    for verbs in re.findall(r"Read by: ([^.]*)\.", (ROOT / ".env.example").read_text()):
        for verb in verbs.replace("\n# ", " ").split(", "):
            assert re.search(rf"^{verb}:.* ## ", makefile, re.MULTILINE), verb
