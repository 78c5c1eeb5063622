"""`make distclean` removes what was made here, and nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.make.conftest import Clone


def made(clone: Clone) -> Clone:
    """The clone with one of each thing that Slipway leaves."""
    clone.run("all")
    clone.write(".env", "LOAD_USERS=1\n")
    clone.write("build/mlflow/mlflow.db", "registry")
    clone.write(".venv/bin/activate", "")
    clone.write(".mypy_cache/x", "")
    clone.write("scripts/__pycache__/x.pyc", "")
    return clone


def no_docker(clone: Clone) -> str:
    """A PATH whose docker finds no engine."""
    clone.write("bin/docker", "#!/bin/sh\nexit 1\n")
    (clone.path / "bin/docker").chmod(0o755)
    return f"{clone.path}/bin:{os.environ['PATH']}"


def test_it_wants_to_be_confirmed(clone: Clone) -> None:
    made(clone)
    refused = clone.make("distclean", ok=False, PATH=no_docker(clone))
    assert "CONFIRM=1" in refused.stderr
    assert (clone.path / "build/mlflow/mlflow.db").exists()


@pytest.mark.parametrize(("answer", "gone"), [("yes\n", True), ("y\n", False), ("", False)])
def test_it_asks_on_a_terminal(clone: Clone, answer: str, gone: bool) -> None:
    made(clone)
    terminal, end = os.openpty()
    # Ctrl-D where nothing is answered.
    os.write(terminal, answer.encode() or b"\x04")
    done = subprocess.run(
        ["make", "distclean"],
        cwd=clone.path,
        env=clone.environment({"PATH": no_docker(clone)}),
        stdin=end,
        capture_output=True,
        text=True,
        timeout=60,
    )
    os.close(end)
    os.close(terminal)
    assert (done.returncode == 0) is gone
    assert "build/" in done.stdout
    assert (clone.path / "build").exists() is not gone


def test_it_removes_all_that_was_made_and_no_more(clone: Clone) -> None:
    path = no_docker(clone)
    before = set(clone.snapshot())
    made(clone)
    ran = clone.make("distclean", "CONFIRM=1", PATH=path)
    assert "no Docker engine" in ran.stderr
    assert set(clone.snapshot()) - before <= {".env", "fake/new"}
    assert before <= set(clone.snapshot())
    clone.make("distclean", CONFIRM="1", PATH=path)


def test_it_stops_a_service_that_is_a_process_first(clone: Clone) -> None:
    made(clone)
    clone.write("build/service/state.json", "{}")
    clone.write(".venv/bin/python", "")
    (clone.path / ".venv/bin/python").chmod(0o755)
    clone.calls()
    clone.make("distclean", "CONFIRM=1", PATH=no_docker(clone))
    assert clone.calls() == ["down"]
    assert not (clone.path / "build").exists()


def test_a_service_that_will_not_stop_keeps_everything(clone: Clone) -> None:
    made(clone)
    clone.write("build/service/state.json", "{}")
    clone.write(".venv/bin/python", "")
    (clone.path / ".venv/bin/python").chmod(0o755)
    clone.fails("down")
    refused = clone.make("distclean", "CONFIRM=1", ok=False, PATH=no_docker(clone))
    assert "could not be stopped" in refused.stderr
    assert (clone.path / "build/mlflow/mlflow.db").exists()


@pytest.mark.docker
def test_in_docker_only_this_clones_things_go(clone: Clone, tmp_path: Path) -> None:
    def docker(*arguments: str) -> str:
        command = ["docker", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def left(name: str) -> list[str]:
        return [
            kind
            for kind in ("container", "network", "volume", "image")
            if subprocess.run(
                ["docker", kind, "inspect", name], capture_output=True, check=False
            ).returncode
            == 0
        ]

    empty = tmp_path / "empty.tar"
    tarfile.open(empty, "w").close()
    clones = {}
    for whose, path in (("ours", clone.path), ("theirs", tmp_path)):
        short = hashlib.sha256(os.fsencode(path)).hexdigest()[:10]
        name = clones[whose] = f"slipway-{short}-thing"
        label = f"slipway.clone={short}"
        docker("import", "--change", f"LABEL {label}", str(empty), name)
        docker("network", "create", "--label", label, name)
        docker("volume", "create", name)
        docker("create", "--name", name, "--label", label, "--network", name, name, "/none")
    try:
        made(clone)
        clone.make("distclean", "CONFIRM=1")
        assert left(clones["ours"]) == []
        assert left(clones["theirs"]) == ["container", "network", "volume", "image"]
    finally:
        for name in clones.values():
            for kind in ("container", "network", "volume", "image"):
                subprocess.run(["docker", kind, "rm", name], capture_output=True, check=False)
