"""A clone with the docker room alone, and a Docker client that only pretends."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Answers what the scripts ask of a Docker client; `build` says what the file `says` holds.
PRETENDER = """#!/bin/sh
here=$(dirname "$0")
echo "$*" >>"$here/calls"
case $1 in
    --version) echo 'Docker version 20.10.24, build 0' ;;
    buildx) exit 1 ;;
    image) case "$*" in *absent*) exit 1 ;; *) cat "$here/id" ;; esac ;;
    build) cat "$here/says"; exit 1 ;;
esac
"""


class Clone:
    """A tree that the room's scripts take for their own, below a folder with a space."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for folder in ("docker", "make"):
            shutil.copytree(ROOT / folder, path / folder)
        shutil.copy(ROOT / ".env.example", path)
        self.id = hashlib.sha256(str(path).encode()).hexdigest()[:10]

    def environment(self, **env: str) -> dict[str, str]:
        """The caller's, without what a runner around the tests has set."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SLIPWAY_")}
        return {**kept, **env}

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.path,
            env=self.environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *command: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, which must be with this exit code."""
        process = self.start(*command, **env)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, out + err
        return subprocess.CompletedProcess(command, code, out, err)

    def runners(self) -> list[str]:
        """Containers of this clone that run now."""
        names = ["docker", "ps", "--quiet", "--filter", f"label=slipway.clone={self.id}"]
        return subprocess.run(names, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "my clone")


@pytest.fixture
def docked(clone: Clone) -> Iterator[Clone]:
    """A clone whose runner is a container; what it made in the engine goes with it."""
    yield clone
    for name in clone.runners():
        subprocess.run(["docker", "rm", "--force", name], capture_output=True)
    for kind in ("home", "azure"):
        volume = f"slipway-{clone.id}-{kind}"
        subprocess.run(["docker", "volume", "rm", volume], capture_output=True)
    subprocess.run(["docker", "network", "rm", f"slipway-{clone.id}"], capture_output=True)


@pytest.fixture
def pretender(tmp_path: Path) -> Path:
    """A folder with a `docker` that builds nothing; its first place on PATH is the caller's job."""
    folder = tmp_path / "pretender"
    folder.mkdir()
    (folder / "docker").write_text(PRETENDER)
    (folder / "docker").chmod(0o755)
    (folder / "id").write_text("sha256:one\n")
    (folder / "says").write_text("")
    return folder
