"""A contestant's packages: what the lock says, installed once, or not taken for done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.environments import Environment, install, plain_environ
from scripts.errors import SlipwayError

pytestmark = pytest.mark.skipif(shutil.which("uv") is None, reason="not run: there is no uv")


def put(path: Path, lock: Path) -> tuple[Environment, float]:
    """Install, and tell when the environment's Python came."""
    environment = install(path, lock)
    return environment, Path(environment.python).lstat().st_mtime_ns


def test_it_is_made_once_and_again_after_an_interruption_or_a_new_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    path, lock = tmp_path / "peer", tmp_path / "peer.txt"
    lock.write_text("# nothing\n")
    _, first = put(path, lock)
    assert put(path, lock)[1] == first
    (path / ".lock").unlink()
    _, second = put(path, lock)
    assert second > first
    lock.write_text("# nothing else\n")
    assert put(path, lock)[1] > second


def test_a_package_that_cannot_be_had_is_an_error_and_not_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    lock = tmp_path / "peer.txt"
    lock.write_text(f"no-such-package==1.0 --hash=sha256:{'0' * 64}\n")
    for _ in range(2):
        with pytest.raises(SlipwayError, match="no-such-package"):
            install(tmp_path / "peer", lock)


def test_contestants_start_from_an_environment_without_overrides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "PYTHONPATH", "BENCH_PEERS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("LANG", "C.UTF-8")
    environ = plain_environ()
    assert environ["LANG"] == "C.UTF-8"
    assert not {"OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "PYTHONPATH", "BENCH_PEERS"} & set(environ)


def test_no_setting_and_no_secret_reaches_a_contestant(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SP_APP_SECRET", "SCORING_KEY", "MAX_ROWS", "WORKERS", "OTEL_SDK_DISABLED"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("LANG", "C.UTF-8")
    left = plain_environ()
    assert left["LANG"] == "C.UTF-8"
    assert not {"SP_APP_SECRET", "SCORING_KEY", "MAX_ROWS", "WORKERS", "OTEL_SDK_DISABLED"} & set(
        left
    )
