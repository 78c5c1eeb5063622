"""make/with-lock.sh: one make at a time in a clone."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from .conftest import Clone

HOLD = "touch up; until [ -e go ]; do sleep 0.05; done"


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


@pytest.fixture(params=["flock", "perl"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """PATH with util-linux's flock, or with perl in its place."""
    tools = [
        "sh",
        "true",
        "cat",
        "tail",
        "mkdir",
        "chown",
        "date",
        "dirname",
        "id",
        "sleep",
        "touch",
    ]
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in [*tools, request.param]:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed")
        (folder / name).symlink_to(found)
    return str(folder)


def test_the_second_says_who_holds_it_and_gives_up_in_time(clone: Clone, path: str) -> None:
    first = clone.start("make/with-lock.sh", "sh", "-c", HOLD, PATH=path)
    _wait_for(clone.path / "up")
    done = clone.call("make/with-lock.sh", "true", code=1, PATH=path, LOCK_WAIT="0")
    assert f"(pid {first.pid}," in done.stderr
    assert "error: " in done.stderr
    assert "LOCK_WAIT" in done.stderr
    (clone.path / "go").touch()
    assert first.wait(20) == 0


def test_the_second_runs_when_the_first_is_done(clone: Clone, path: str) -> None:
    first = clone.start("make/with-lock.sh", "sh", "-c", HOLD + "; touch first", PATH=path)
    _wait_for(clone.path / "up")
    second = clone.start("make/with-lock.sh", "sh", "-c", "[ -e first ] && exit 5", PATH=path)
    assert "waiting for" in second.stderr.readline()  # type: ignore[union-attr]
    (clone.path / "go").touch()
    assert (first.wait(20), second.wait(20)) == (0, 5)


def test_a_child_that_outlives_the_holder_still_holds_it(clone: Clone, path: str) -> None:
    first = clone.start("make/with-lock.sh", "sh", "-c", f"({HOLD}) & wait", PATH=path)
    _wait_for(clone.path / "up")
    first.kill()
    first.wait()
    clone.call("make/with-lock.sh", "true", code=1, PATH=path, LOCK_WAIT="0")
    (clone.path / "go").touch()
    clone.call("make/with-lock.sh", "true", PATH=path, LOCK_WAIT="20")


def test_a_lock_file_that_was_removed_meanwhile_counts_for_nothing(clone: Clone, path: str) -> None:
    first = clone.start("make/with-lock.sh", "sh", "-c", HOLD, PATH=path)
    _wait_for(clone.path / "up")
    again = "touch up2; until [ -e go2 ]; do sleep 0.05; done"
    second = clone.start("make/with-lock.sh", "sh", "-c", again, PATH=path)
    assert "waiting for" in second.stderr.readline()  # type: ignore[union-attr]
    shutil.rmtree(clone.path / "build")
    (clone.path / "go").touch()
    _wait_for(clone.path / "up2")
    clone.call("make/with-lock.sh", "true", code=1, PATH=path, LOCK_WAIT="0")
    (clone.path / "go2").touch()
    assert (first.wait(20), second.wait(20)) == (0, 0)
