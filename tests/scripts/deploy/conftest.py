"""Both kinds of service on clones of the tests' own, and releases for them.

Names, networks and ports follow from the clone's path, so nothing here touches the user's service.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from scripts.platforms.base import Release
from scripts.platforms.local.containers import ContainerService
from scripts.platforms.local.processes import ProcessService
from scripts.settings import Settings, clone_id
from tests.scripts.deploy.releases import ROOT, build_image, sample_of, write_release

Service = ContainerService | ProcessService
#: Whether the tests run in the toolbox: the host's ports are not ours, so we join networks instead.
INSIDE = "SLIPWAY_NETWORK" in os.environ
KINDS = ["process", pytest.param("container", marks=pytest.mark.docker)]

#: For what hardly differs between the kinds.
KINDS_SLOW = ["process", pytest.param("container", marks=[pytest.mark.docker, pytest.mark.slow])]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Fleet:
    """Releases by name, made when first asked for: v1, v2 ..., `broken` and `wrong`."""

    def __init__(self, folder: Path, image: str | None) -> None:
        self.folder = folder
        self.image = image
        self._made: dict[str, Release] = {}

    def __getitem__(self, name: str) -> Release:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Release:
        if name == "broken":
            release = write_release(self.folder, 8, name, sha256="0" * 64)
        elif name == "wrong":
            sample = {"request": {"data": [[1.0, 2.0]]}, "result": [-1.0], "tolerance": 1e-6}
            release = write_release(self.folder, 9, name, sample=sample)
        else:
            release = write_release(self.folder, int(name.removeprefix("v")))
        return build_image(release, self.image) if self.image else release


class Bench:
    """One clone and its service; `deploy` takes a release's name."""

    def __init__(self, kind: str, root: Path, fleet: Fleet) -> None:
        self.kind = kind
        self.root = root
        self.fleet = fleet
        self.port = free_port()
        self._service = self.with_settings()
        if kind == "container" and INSIDE:
            join(root)

    @property
    def service(self) -> Service:
        return self._reached(self._service)

    def with_settings(self, **settings: Any) -> Service:
        """The service as a verb with these settings sees it."""
        found = Settings(**{"SCORING_PORT": self.port, "GRACE_SECONDS": 3, **settings})
        if self.kind == "container":
            return self._reached(ContainerService(self.root, found))
        return ProcessService(self.root, found)

    def _reached(self, service: Service) -> Service:
        """The service, once the environment says that we are on its network, as the runner says."""
        if self.kind == "container" and INSIDE:
            os.environ["SLIPWAY_NETWORK"] = f"slipway-{clone_id(self.root)}"
        return service

    def deploy(self, name: str, **settings: Any) -> Any:
        service = self.with_settings(**settings) if settings else self.service
        return service.deploy(self.fleet[name], sample_of(self.fleet[name]))

    @property
    def serving(self) -> list[int]:
        """The versions that serve and are healthy: one, or none."""
        return [each.version for each in self.service.history() if each.serving and each.healthy]

    def running(self) -> list[str]:
        """The containers, or process ids, of servers that run for this clone, serving or not."""
        if isinstance(self.service, ContainerService):
            label = {"label": [f"slipway.clone={self.service.here.clone}", "slipway.role=service"]}
            return [each.name for each in self.service.here.client.containers.list(filters=label)]
        return server_pids(self.fleet.folder)

    @property
    def numbers(self) -> list[int]:
        return [each.number for each in self.service.history()]


def server_pids(folder: Path) -> list[str]:
    """Processes that run a server from a bundle below `folder`; its workers do not count again."""
    found = {}
    for each in psutil.process_iter(["cmdline", "cwd", "ppid"]):
        command, cwd = each.info["cmdline"] or [], each.info["cwd"] or ""
        if "scoring.server" in command and cwd.startswith(os.fspath(folder)):
            found[each.pid] = each.info["ppid"]
    return [str(pid) for pid, parent in found.items() if parent not in found]


def join(root: Path) -> None:
    """Put the container we run in on the clone's network, as the runner does."""
    name = f"slipway-{clone_id(root)}"
    client = docker.from_env()
    network = client.networks.create(name, labels={"slipway.clone": clone_id(root)})
    network.connect(socket.gethostname())
    client.close()


def remove(root: Path) -> None:
    """Remove whatever runs for the clone at `root`."""
    settings = Settings()
    ProcessService(root, settings).stop()
    containers = ContainerService(root, settings)
    label = f"slipway.clone={clone_id(root)}"
    for each in containers.here.client.containers.list(all=True, filters={"label": label}):
        each.remove(force=True)
    for network in containers.here.client.networks.list(filters={"label": label}):
        if INSIDE:
            network.disconnect(socket.gethostname(), force=True)
        network.remove()
    containers.here.client.close()


@pytest.fixture(scope="session")
def make_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Fleet]]:
    """Releases of each kind, shared by all tests; their images are removed at the end."""
    made: dict[str, Fleet] = {}
    image = f"slipway-{clone_id(ROOT)}-deploytest-{os.getpid()}"

    def make(kind: str) -> Fleet:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = Fleet(folder, image if kind == "container" else None)
        return made[kind]

    yield make
    if "container" in made:
        client = docker.from_env()
        for found in client.images.list(image):
            # By name: another run of the tests may have made, and use, the very same image.
            for name in found.tags:
                if name.startswith(f"{image}:"):
                    client.images.remove(name)
        client.close()


@pytest.fixture(scope="session")
def front_image() -> str:
    """The front image's name, built once: clones of tests have no docker/ of their own."""
    script = ROOT / "docker" / "image.sh"
    made = subprocess.run([script, "front"], check=True, capture_output=True, text=True)
    return made.stdout.strip()


@pytest.fixture
def make_bench(
    tmp_path: Path,
    make_fleet: Callable[[str], Fleet],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., Bench]]:
    """Makes benches; what they started is gone when the test ends."""
    made: list[Bench] = []
    if INSIDE:
        monkeypatch.setenv("SLIPWAY_NETWORK", os.environ["SLIPWAY_NETWORK"])

    def make(kind: str, root: Path = tmp_path / "a clone") -> Bench:
        if kind == "container":
            monkeypatch.setenv("SLIPWAY_FRONT_IMAGE", request.getfixturevalue("front_image"))
        root.mkdir(parents=True, exist_ok=True)
        made.append(Bench(kind, root, make_fleet(kind)))
        return made[-1]

    yield make
    for bench in made:
        if any(each.kind == "container" for each in made):
            remove(bench.root)
        else:
            bench.service.stop()
        shutil.rmtree(bench.root, ignore_errors=True)


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, make_bench: Callable[..., Bench]) -> Bench:
    """A clone with a service of each kind; its path has a space."""
    return make_bench(request.param)
