"""docker/image.sh, build.sh and base.sh: names, and what is said when a build cannot be."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from .conftest import ROOT, Clone


def _name(clone: Clone, pretender: Path, stage: str = "toolbox") -> str:
    path = f"{pretender}:{os.environ['PATH']}"
    return clone.call("docker/image.sh", stage, PATH=path).stdout.strip()


def test_an_image_is_named_by_what_it_is_made_of(clone: Clone, pretender: Path) -> None:
    first = _name(clone, pretender)
    assert re.fullmatch(r"slipway-toolbox:[0-9a-f]{12}", first)
    assert _name(clone, pretender) == first
    with (clone.path / "docker/locks/az.txt").open("a") as lock:
        lock.write("# not part of it\n")
    assert _name(clone, pretender) == first
    with (clone.path / "docker/locks/toolbox.txt").open("a") as lock:
        lock.write("# part of it\n")
    second = _name(clone, pretender)
    (pretender / "id").write_text("sha256:another-base\n")
    assert len({first, second, _name(clone, pretender)}) == 3


def test_an_image_that_is_there_is_not_built(clone: Clone, pretender: Path) -> None:
    _name(clone, pretender)
    assert "build" not in (pretender / "calls").read_text()


def test_a_forced_verb_does_not_make_the_base_anew(clone: Clone, pretender: Path) -> None:
    path = f"{pretender}:{os.environ['PATH']}"
    clone.call("docker/image.sh", "toolbox", PATH=path, FORCE="1")
    assert "pull" not in (pretender / "calls").read_text()


def test_an_unknown_image_is_refused(clone: Clone) -> None:
    assert "toolbox, az, dev, front" in clone.call("docker/image.sh", "box", code=2).stderr


@pytest.mark.parametrize(
    ("says", "code", "told"),
    [
        (
            "#9 1.0 E: You don't have enough\n#9 1.1 write: no space left on device\n",
            1,
            "no space left",
        ),
        ("Cannot connect to the Docker daemon at unix:///x.\n", 2, "no Docker engine answers"),
        ("#7 2.5 invalid peer certificate: UnknownIssuer, unknown issuer\n", 1, "EXTRA_CA"),
        ("#3 [a 1/1] RUN x\n#3 0.4 such is life\n#3 ERROR: executor failed\n", 1, "such is life"),
    ],
)
def test_a_build_that_fails_says_why(
    clone: Clone, pretender: Path, says: str, code: int, told: str
) -> None:
    (pretender / "says").write_text(says)
    done = clone.call(
        *("docker/build.sh", "scoring", "docker", "slipway-none:1"),
        code=code,
        PATH=f"{pretender}:{os.environ['PATH']}",
    )
    assert "error: " in done.stderr
    assert told in done.stderr
    assert (clone.path / "build/docker/scoring.log").read_text() == says


def test_a_base_image_that_cannot_be_had_is_named(clone: Clone, pretender: Path) -> None:
    done = clone.call(
        "docker/base.sh",
        code=0,
        PATH=f"{pretender}:{os.environ['PATH']}",
        BASE_IMAGE="company/debian:1",
    )
    assert done.stdout == "company/debian:1\n"
    (pretender / "docker").write_text("#!/bin/sh\n[ $1 = --version ] || echo refused; exit 1\n")
    done = clone.call(
        "docker/base.sh",
        code=2,
        PATH=f"{pretender}:{os.environ['PATH']}",
        BASE_IMAGE="company/absent:1",
    )
    assert "BASE_IMAGE=company/absent:1: refused" in done.stderr


def test_without_a_registry_and_mmdebstrap_both_mends_are_named(
    clone: Clone, pretender: Path, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (pretender / "docker").write_text("#!/bin/sh\necho refused\nexit 1\n")
    for name in (
        *("sh", "awk", "cat", "cut", "dirname", "env", "find", "flock", "grep", "id", "mkdir"),
        *("sha256sum", "stat", "tail", "timeout", "chown"),
    ):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = clone.call("docker/base.sh", code=2, PATH=f"{pretender}:{tools}", BASE_IMAGE="")
    assert "cannot be pulled" in done.stderr
    assert "BASE_IMAGE" in done.stderr
    assert "install mmdebstrap" in done.stderr


def test_the_dockerfile_is_written_for_the_oldest_frontend() -> None:
    lines = (ROOT / "docker/Dockerfile").read_text().splitlines()
    assert not [line for line in lines if line.startswith("#") and "syntax=" in line]
    text = "\n".join(line for line in lines if not line.startswith("#"))
    assert "<<" not in text
    assert "--link" not in text


@pytest.mark.parametrize(
    "name", ["toolbox", "scoring-linear", "scoring", "scoring-sklearn", "uv", "az", "checks"]
)
def test_locks_are_hashed_and_name_no_place(name: str) -> None:
    text = (ROOT / f"docker/locks/{name}.txt").read_text()
    pins = re.findall(r"^[a-z0-9][\w.\[\]-]*==\S+ \\$", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"==", text)) > 0
    assert text.count("--hash=sha256:") >= len(pins)
    assert "://" not in text
    assert "#    make lock\n" in text


def test_what_scoring_shares_with_the_toolbox_has_the_same_version() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / f"docker/locks/{name}.txt").read_text()
        return dict(re.findall(r"^(\S+)==(\S+) \\$", text, re.MULTILINE))

    toolbox = pins("toolbox")
    for name in ("scoring-linear", "scoring", "scoring-sklearn", "uv"):
        assert pins(name).items() <= toolbox.items()
    assert not {"scikit-learn", "joblib", "pandas"} & pins("scoring").keys()
    assert "onnxruntime" not in pins("scoring-linear")
    assert pins("scoring-linear").items() <= pins("scoring").items()
    assert pins("scoring-linear").items() <= pins("scoring-sklearn").items()
