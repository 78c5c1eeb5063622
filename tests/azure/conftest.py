"""A stand-in of the test's own, and a clone whose verbs find their Azure there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import rooms
from tests.azure.ml_place import client_environment, make_place
from tests.azure.mlclient import MlClient
from tests.azure.standin.standin import StandIn, has_docker
from tests.azure.standin.world import APP, SUBSCRIPTION, TENANT
from tests.e2e.conftest import QUICK, lay_out


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs az or azurite is reported as not run where they are missing."""
    missing = [name for name in ("az", "azurite-blob") if shutil.which(name) is None]
    for item in items:
        if missing and item.get_closest_marker("azure"):
            item.add_marker(pytest.mark.skip(reason=f"not run: no {' and no '.join(missing)}"))


def surroundings() -> dict[str, str]:
    """This process's environment without what a make, a runner, a test or a login around it has set."""
    ours = ("SLIPWAY_", "MAKE", "PYTEST_", "AZURE_", "ACTIONS_", "SYSTEM_", "ARM_", "VERBOSE")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


class AzureClone:
    """A clone of the tree with a model room of the tests' own and PLATFORM=azure in its .env.

    `settings` is what .env holds; a test may change it and call `save`. Verbs are child processes
    whose Azure is `standin`.
    """

    def __init__(self, path: Path, standin: StandIn) -> None:
        self.path, self.standin = path, standin
        self.home = path.parent / f"{path.name}-home"
        self.settings = {
            "PLATFORM": "azure",
            "RUNNER": "here",
            "SUBSCRIPTION_ID": SUBSCRIPTION,
            "TENANT_ID": TENANT,
            "SP_APP_ID": APP,
            "SP_APP_SECRET": standin.world.app_secret,
            "BASE_NAME": "Kiln42",
            "WORKSPACE_NAME": "kiln-ws",
            "ACI_DEPLOYMENT_NAME": "kiln-aci",
            "ALLOW_HTTP": "true",
        }

    def save(self, **changed: str) -> None:
        """Write .env, with `changed` from now on."""
        self.settings |= changed
        text = "".join(f"{name}={value}\n" for name, value in self.settings.items())
        (self.path / ".env").write_text(text)

    def environment(self, **more: str) -> dict[str, str]:
        """What a verb's process sees: the stand-in, and nothing of a runner or a login around us."""
        places = {"SLIPWAY_ROOT": str(self.path), "RUNNER": "here"}
        engine = {"SLIPWAY_ENGINE": "docker" if self.standin.world.docker else "none"}
        return {**surroundings(), **self.standin.environment(self.home), **places, **engine, **more}

    def start(self, verb: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Begin a verb as the leader of a process group of its own; one stream has all it prints."""
        return subprocess.Popen(
            [sys.executable, "-m", f"scripts.{verb}", *arguments],
            cwd=self.path,
            env=self.environment(**environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, verb: str, *arguments: str, code: int = 0, **environ: str) -> str:
        """Run a verb to its end, which must be with `code`; returns what it printed."""
        child = self.start(verb, *arguments, **environ)
        printed, _ = child.communicate(timeout=560)
        assert child.returncode == code, printed
        return printed

    def make(self, *goals: str, code: int = 0, **environ: str) -> str:
        """Run make to its end, which must be with `code`; returns what it printed."""
        done = subprocess.run(
            ["make", *goals],
            cwd=self.path,
            env=self.environment(**QUICK, **environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1200,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def az(self, *arguments: str) -> Any:
        """What az itself gives, with the clone's login."""
        done = subprocess.run(
            ["az", *arguments, "--output", "json"],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout or "null")

    @property
    def folder(self) -> Path:
        """Where the records lie."""
        return self.path / "build" / "azure" / self.settings["WORKSPACE_NAME"]

    @property
    def records(self) -> Mapping[str, Any]:
        """The records by verb."""
        return {
            path.stem: json.loads(path.read_text("utf-8")) for path in self.folder.glob("*.json")
        }


def _standin(request: pytest.FixtureRequest, folder: Path, root: Path) -> Iterator[StandIn]:
    docker = request.node.get_closest_marker("docker") is not None and has_docker()
    standin = StandIn(folder, root, docker=docker)
    try:
        yield standin
    finally:
        standin.close()


@pytest.fixture
def standin(request: pytest.FixtureRequest, tmp_path: Path, root: Path) -> Iterator[StandIn]:
    """An empty subscription; containers run only for tests marked `docker`."""
    yield from _standin(request, tmp_path / "standin", root)


@pytest.fixture(scope="module")
def shared_standin(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> Iterator[StandIn]:
    """One stand-in for a module's tests; `docker` if the module's `pytestmark` says so."""
    yield from _standin(request, tmp_path_factory.mktemp("standin"), root)


def make_clone(root: Path, path: Path, standin: StandIn) -> AzureClone:
    """A clone at `path` with the regressor's room and settings saved."""
    path.mkdir(parents=True)
    lay_out(root, path)
    rooms.write_room(path)
    clone = AzureClone(path, standin)
    clone.save()
    return clone


@pytest.fixture
def azure_clone(root: Path, tmp_path: Path, standin: StandIn) -> AzureClone:
    """A clone on the test's own stand-in."""
    return make_clone(root, tmp_path / "clone", standin)


@pytest.fixture(scope="module")
def shared_clone(
    root: Path, tmp_path_factory: pytest.TempPathFactory, shared_standin: StandIn
) -> AzureClone:
    """A clone for a module's tests, on the module's stand-in."""
    return make_clone(root, tmp_path_factory.mktemp("azure") / "clone", shared_standin)


@pytest.fixture(scope="module")
def ml_standin(shared_standin: StandIn) -> StandIn:
    """The module's stand-in with a workspace in it."""
    make_place(shared_standin)
    return shared_standin


@pytest.fixture(scope="module")
def ml(ml_standin: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlClient]:
    """azureml-sdk at work in that workspace."""
    folder = tmp_path_factory.mktemp("ml")
    environment = {**ml_standin.environment(folder / "home"), **client_environment(ml_standin)}
    client = MlClient(environment, folder)
    yield client
    client.close()
