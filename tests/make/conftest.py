"""A small clone with the real Makefile and a runner that writes down what it was asked to run."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = ["data", "train", "evaluate", "register", "image", "deploy", "smoke", "load", "report"]

#: Stands in for docker/run.sh: one line a call, the verb's record, and an exit code if told so.
RUNNER = """#!/bin/sh
set -eu
if [ "$1" = --where ]; then exec cat fake/where; fi
verb=${3-}
verb=${verb#scripts.}
printf '%s FORCE=%s PARAMS=%s MODEL_VERSION=%s\\n' "$*" "${FORCE-}" "${PARAMS-}" \\
    "${MODEL_VERSION-}" >>fake/calls
records=build/local
record=$verb
if [ "${PLATFORM-}" = azure ]; then
    records=build/azure/ws
    case $verb in deploy | smoke | load) record=$verb-$DEPLOY_TARGET ;; esac
fi
[ ! -e "fake/$verb.pause" ] || { echo "$$" >"fake/$verb.pid"; exec sleep 60; }
[ ! -e "fake/$verb.code" ] || exit "$(cat "fake/$verb.code")"
[ "$verb" != "${3-}" ] || exit 0
mkdir -p "$records"
printf '{"verb": "%s", "says": "%s"}\\n' "$verb" "$(cat "fake/$verb.says" 2>/dev/null)" >fake/new
cmp -s fake/new "$records/$record.json" || cp fake/new "$records/$record.json"
"""


class Clone:
    """One clone; `make()` runs make in it, `calls()` tells which verbs ran since last asked."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def populate(self) -> None:
        """Lay out the real Makefile and its room, and small stand-ins for the others."""
        path = self.path
        shutil.copytree(ROOT / "make", path / "make")
        for name in ("Makefile", ".env.example"):
            shutil.copy(ROOT / name, path)
        self.write("model/__init__.py", "")
        self.write("model/train.py", "alpha = 1\n")
        self.write("model/deep/er/table.csv", "1\n")
        self.write("model/defaults.env", "DATA_PATH=data/rows.csv\nMODEL_NAME=tiny\n")
        self.write("data/rows.csv", "a,b\n1,2\n")
        self.write("scoring/score.py", "\n")
        makefile = (ROOT / "Makefile").read_text()
        for name in re.findall(
            r"\b(?:scripts|docker|arm)/[\w/-]+\.(?:py|txt|sh|cfg|json)\b", makefile
        ):
            self.write(name, "\n")
        verbs = ("provision", *STAGES)
        for name in ("docker/Dockerfile", *(f"scripts/{verb}.py" for verb in verbs)):
            self.write(name, "\n")
        shutil.copy(ROOT / "docker/lib.sh", path / "docker")
        self.write("fake/calls", "")
        self.write("docker/run.sh", RUNNER)
        (path / "docker/run.sh").chmod(0o755)

    def write(self, name: str, text: str) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())

    def remove(self, name: str) -> None:
        (self.path / name).unlink()

    def touch(self, name: str) -> None:
        (self.path / name).touch()

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """What a terminal has, without what a make around us or a user's settings would add."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        return {**kept, **env}

    def make(
        self, *arguments: str, ok: bool | None = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run make; `ok` None leaves the exit code to the caller."""
        done = subprocess.run(
            ["make", *arguments],
            cwd=self.path,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if ok is not None:
            assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done

    def lines(self) -> list[str]:
        """The runner's calls since last asked, whole."""
        file = self.path / "fake/calls"
        found = file.read_text().splitlines()
        file.write_text("")
        return found

    def calls(self) -> list[str]:
        """The verbs that ran since last asked, in order."""
        return [line.split()[2].removeprefix("scripts.") for line in self.lines()]

    def run(self, *arguments: str, **env: str) -> list[str]:
        """Run make and return the verbs it ran."""
        self.make(*arguments, ok=True, **env)
        return self.calls()

    def says(self, stage: str, text: str) -> None:
        """From now on the stage's record holds `text`."""
        self.write(f"fake/{stage}.says", text)

    def fails(self, stage: str, code: int = 1) -> None:
        self.write(f"fake/{stage}.code", str(code))

    def succeeds(self, stage: str) -> None:
        self.remove(f"fake/{stage}.code")

    def snapshot(self) -> dict[str, tuple[int, str]]:
        """Every file and folder with its time of change and content."""
        return {
            str(file.relative_to(self.path)): (
                file.lstat().st_mtime_ns,
                hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "",
            )
            for file in sorted(self.path.rglob("*"))
        }


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    path = tmp_path / "clone"
    path.mkdir()
    clone = Clone(path)
    clone.populate()
    return clone


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which everything is up to date, to be copied and never touched."""
    path = tmp_path_factory.mktemp("finished") / "clone"
    path.mkdir()
    clone = Clone(path)
    clone.populate()
    assert clone.run("all") == STAGES
    return clone


@pytest.fixture
def done(finished: Clone, tmp_path: Path) -> Clone:
    """A clone in which everything is up to date."""
    # Times of change and all.
    shutil.copytree(finished.path, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone")
