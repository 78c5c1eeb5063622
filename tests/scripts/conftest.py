"""A clone of the tests' own in which verbs run in this process."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import rooms


class Workspace:
    """A folder with a model room and data; `run` calls a verb on it and returns its exit code."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def run(self, verb: str, **environ: str) -> int:
        for name in [name for name in sys.modules if name.split(".")[0] == "model"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        with self._monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            main: Callable[[], int] = importlib.import_module(f"scripts.{verb}").main
            return main()

    def record(self, verb: str) -> Any:
        return rooms.records(self.folder)[verb]

    @property
    def records(self) -> dict[str, Any]:
        return rooms.records(self.folder)


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database as our own code creates it, made once: that takes seconds."""
    from scripts.platforms.local.tracking import MlflowTracking, database

    folder = tmp_path_factory.mktemp("registry")
    MlflowTracking(folder).start_run("template", {})
    return database(folder)


@pytest.fixture
def workspace(
    tmp_path: Path, root: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    """A regressor's workspace; a test may write another room into it."""
    registry = tmp_path / "build" / "mlflow"
    registry.mkdir(parents=True)
    shutil.copy(empty_registry, registry)
    rooms.write_room(tmp_path)
    lock = tmp_path / "docker" / "locks"
    lock.mkdir(parents=True)
    shutil.copy(root / "docker" / "locks" / "toolbox.txt", lock)
    monkeypatch.setenv("SLIPWAY_ROOT", str(tmp_path))
    monkeypatch.setenv("SLIPWAY_ENGINE", "none")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Workspace(tmp_path, monkeypatch)
    for name in [name for name in sys.modules if name.split(".")[0] == "model"]:
        del sys.modules[name]
