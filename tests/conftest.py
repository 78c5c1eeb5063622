"""What all tests share: a scratch folder below build/, and which marks can run here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _engine_problem() -> str | None:
    """Why no test can use Docker here; None if they can."""
    if os.environ.get("SLIPWAY_ENGINE") == "none":
        return "RUNNER=venv: Docker is left alone"
    try:
        answer = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no Docker engine: {error}"
    return None if answer.returncode == 0 else f"no Docker engine: {answer.stderr.strip()}"


def pytest_configure(config: pytest.Config) -> None:
    # A job in the background of a script ignores Ctrl-C, and so would all that the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.basetemp is None:
        scratch = ROOT / "build" / "test"
        scratch.mkdir(parents=True, exist_ok=True)
        config.option.basetemp = str(scratch / f"run-{os.getpid()}")
    # The user's own settings never reach a test; what a test sets, it sets itself.
    for line in (ROOT / ".env.example").read_text("utf-8").splitlines():
        name, equals, _ = line.partition("=")
        if equals and not line.startswith("#") and name not in KEPT:
            os.environ.pop(name, None)
    for name in ("PARAMS", "FORCE", "MODEL_VERSION", "CONFIRM", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
        os.environ.pop(name, None)


#: How the machine is reached is not a matter of the model: tests need it as the user has it.
KEPT = {"RUNNER", "BASE_IMAGE", "EXTRA_CA"}


def pytest_unconfigure(config: pytest.Config) -> None:
    base = Path(str(config.option.basetemp))
    if base.name.startswith("run-") and not os.environ.get("PYTEST_XDIST_WORKER"):
        shutil.rmtree(base, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    docked = [item for item in items if item.get_closest_marker("docker")]
    problem = _engine_problem() if docked else None
    for item in docked:
        # Images and ports are the engine's, so what uses it runs one after another.
        item.add_marker(pytest.mark.xdist_group("engine"))
        if problem:
            item.add_marker(pytest.mark.skip(reason=f"not run: {problem}"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository under test."""
    return ROOT


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "400")
