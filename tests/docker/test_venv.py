"""docker/venv.sh: .venv is what the lock says, or is not taken for done."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

from .conftest import Clone


def _lock(clone: Clone, shelf: Path, version: str) -> None:
    """Lock the clone to a package of one line that lies on the shelf."""
    wheel = shelf / f"tiny-{version}-py3-none-any.whl"
    info = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", f"version = '{version}'\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(
            f"{info}/RECORD",
            "".join(f"{name},,\n" for name in [*archive.namelist(), f"{info}/RECORD"]),
        )
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (clone.path / "docker/locks/toolbox.txt").write_text(
        f"tiny=={version} --hash=sha256:{digest}\n"
    )


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


@pytest.fixture
def env(shelf: Path) -> dict[str, str]:
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    return {"RUNNER": "venv", "UV_FIND_LINKS": str(shelf), "UV_OFFLINE": "1"}


ASK = ["docker/run.sh", "python", "-c", "import sys, tiny; print(tiny.version, sys.prefix)"]


def test_it_is_made_once_and_follows_the_lock(
    clone: Clone, shelf: Path, env: dict[str, str]
) -> None:
    _lock(clone, shelf, "1.0")
    made = clone.call(*ASK, **env)
    assert made.stdout == f"1.0 {clone.path}/.venv\n"
    assert "making .venv" in made.stderr
    assert clone.call(*ASK, **env).stderr == ""
    _lock(clone, shelf, "2.0.1")
    assert clone.call(*ASK, **env).stdout.startswith("2.0.1 ")


def test_one_that_was_not_finished_is_made_again(
    clone: Clone, shelf: Path, env: dict[str, str]
) -> None:
    _lock(clone, shelf, "1.0")
    clone.call(*ASK, **env)
    (clone.path / ".venv/.slipway").write_text("building\n")
    (clone.path / ".venv/left-over").touch()
    assert clone.call(*ASK, **env).stdout.startswith("1.0 ")
    assert not (clone.path / ".venv/left-over").exists()


def test_a_package_that_is_not_what_was_locked_is_refused(
    clone: Clone, shelf: Path, env: dict[str, str]
) -> None:
    _lock(clone, shelf, "1.0")
    lock = clone.path / "docker/locks/toolbox.txt"
    lock.write_text(lock.read_text().split("sha256:")[0] + "sha256:" + "0" * 64 + "\n")
    failed = clone.call(*ASK, code=1, **env)
    assert "build/docker/venv.log" in failed.stderr
    assert "Traceback" not in failed.stderr
    # Nothing of it is taken for done.
    _lock(clone, shelf, "1.0")
    assert clone.call(*ASK, **env).stdout.startswith("1.0 ")


def test_an_environment_of_the_users_own_is_left_alone(clone: Clone) -> None:
    (clone.path / ".venv").mkdir()
    (clone.path / ".venv/precious").touch()
    done = clone.call("docker/run.sh", "true", code=2, RUNNER="venv")
    assert ".venv exists and is not Slipway's" in done.stderr
    assert (clone.path / ".venv/precious").exists()


def test_without_python_and_uv_both_mends_are_named(clone: Clone, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in (
        *("sh", "env", "cat", "sed", "cut", "dirname", "mkdir", "rm", "find", "tail", "id"),
        *("sha256sum", "stat", "awk", "flock", "chown"),
    ):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = clone.call("docker/venv.sh", code=2, PATH=str(tools))
    assert "neither Python 3.11 nor uv" in done.stderr
    assert "RUNNER=container" in done.stderr
