"""The Docker engine and the ports that the service and MLflow's page are published on."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scripts.checks.finding import Finding, ok, problem
from scripts.checks.machine import GIB, room
from scripts.platforms import connect
from scripts.platforms.base import serving
from scripts.settings import Settings, clone_id, default_port

if TYPE_CHECKING:
    from docker import DockerClient

#: For the toolbox, its layers while they are built, and the last three scoring images.
IMAGE_BYTES = 5 * GIB


def has_engine() -> bool:
    """Whether the runner found an engine."""
    return os.environ.get("SLIPWAY_ENGINE") == "docker"


def docker(root: Path, settings: Settings) -> Iterator[Finding]:
    """The engine answers, the client can build, and there is room for images."""
    if not has_engine():
        yield Finding("note", "docker", "no engine (venv mode): no image can be built here")
        return
    import docker as client

    try:
        with closing(client.from_env(timeout=10)) as engine:
            version, info = engine.version(), engine.info()
    except client.errors.DockerException as error:
        yield problem("docker", f"the engine does not answer: {error}", "start it, or RUNNER=venv")
        return
    yield ok("docker", f"engine {version['Version']}, {info['OSType']}/{info['Architecture']}")
    yield builder()
    # Seen from a container, images lie where its own root file system does.
    images = Path(str(info.get("DockerRootDir", "/")))
    yield room("images", images if images.is_dir() else Path("/"), IMAGE_BYTES)


def builder() -> Finding:
    """Whether the client builds with BuildKit: built in from 18.09 to 22, a plugin from 23 on."""
    command = shutil.which("docker")
    mend = "install docker.io of Debian, or Docker's buildx plugin"
    if command is None:
        return problem("buildkit", "there is no docker command", mend)
    said = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=10)
    found = re.search(r"version (\d+)\.(\d+)", said.stdout)
    if found and (18, 9) <= (int(found[1]), int(found[2])) < (23, 0):
        return ok("buildkit", f"in the client {found[1]}.{found[2]}")
    plugin = subprocess.run([command, "buildx", "version"], capture_output=True, timeout=10)
    if plugin.returncode == 0:
        return ok("buildkit", "as the client's plugin")
    return problem("buildkit", f"the client ({said.stdout.strip()}) has none", mend)


def ports(root: Path, settings: Settings) -> Iterator[Finding]:
    """The two ports are free, or held by this clone itself."""
    wanted = {
        "SCORING_PORT": settings.SCORING_PORT or default_port(root),
        "MLFLOW_PORT": settings.MLFLOW_PORT or default_port(root, offset=10000),
    }
    if len(set(wanted.values())) == 1:
        yield problem(
            "ports", "SCORING_PORT and MLFLOW_PORT are the same", "set another MLFLOW_PORT"
        )
        return
    for name, port in wanted.items():
        if name == "SCORING_PORT" and ours(root, settings, port):
            yield ok("ports", f"{name}={port} is held by our own service")
            continue
        taken = publishing_fails(root, port) if has_engine() else binding_fails(port)
        if taken is None:
            yield ok("ports", f"{name}={port} is free")
        else:
            yield problem("ports", f"{name}={port}: {taken}", f"set another {name} in .env")


def ours(root: Path, settings: Settings, port: int) -> bool:
    """Whether this clone's service is what listens."""
    deployed = serving(connect(root, settings).service)
    return deployed is not None and urlsplit(deployed.url).port == port


def binding_fails(port: int) -> str | None:
    """Why the port cannot be listened on, or None if it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return str(error.strerror).lower()
    return None


def publishing_fails(root: Path, port: int) -> str | None:
    """Why Docker cannot publish the port, or None if it can.

    A container cannot see which ports of the host are taken, so one is published for a moment, by a
    container of any image that is here: it has to start, not to run anything.
    """
    import docker as client

    with closing(client.from_env(timeout=30)) as engine:
        image = any_image(engine)
        if image is None:
            return None
        container: Any = engine.containers.create(
            image,
            ["true"],
            entrypoint=["true"],
            ports={"1/tcp": ("127.0.0.1", port)},
            labels={"slipway.clone": clone_id(root), "slipway.role": "probe"},
        )
        try:
            container.start()
        except client.errors.APIError as error:
            if re.search(r"already (allocated|in use)|ports are not available", str(error)):
                return "another program holds it"
            # What else may fail tells nothing of the port.
        finally:
            container.remove(force=True)
    return None


def any_image(engine: DockerClient) -> str | None:
    """An image to publish a port with: the one we run in, else any."""
    import docker as client

    try:
        return str(engine.containers.get(socket.gethostname()).image.id)
    except client.errors.NotFound:
        found = engine.images.list()
        return str(found[0].id) if found else None
