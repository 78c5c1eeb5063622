"""Containers that the stand-in runs, and images as they come from its registries.

A pull goes by the registry's own door as the puller's identity, so roles, names and digests are
checked there. What runs is published on 127.0.0.1 only.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.azure.standin.directory import ARM_AUDIENCES, Principal, access_token
from tests.azure.standin.messages import Request
from tests.azure.standin.routes import Routes
from tests.azure.standin.world import World, new_id

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

LABEL = "slipway.standin"
MANIFESTS = ",".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
#: One image at a time comes out of a registry: a second pull of it then finds it there.
_pulling = threading.Lock()


class PullFailed(Exception):
    """Why an image does not come, in the words of an engine."""


@dataclass
class Engine:
    """The engine of this machine, and what this world has in it."""

    world: World
    routes: Routes
    #: Tags that pulls left in the engine.
    copied: list[str] = field(default_factory=list)
    #: References that are images of the engine (ids) without a registry; a test adds to them.
    offered: dict[str, str] = field(default_factory=dict)

    @cached_property
    def client(self) -> Any:
        import docker

        return docker.from_env()

    @property
    def label(self) -> str:
        return f"{LABEL}={self.world.folder}"

    def clear(self) -> None:
        """Remove what is left."""
        if not self.world.docker:
            return
        for each in self.client.containers.list(all=True, filters={"label": self.label}):
            with suppress(Exception):
                each.remove(force=True)
        for tag in self.copied:
            with suppress(Exception):
                self.client.images.remove(tag, noprune=True)


def engine(world: World) -> Engine:
    """The world's engine."""
    found = world.rooms["engine"]
    assert isinstance(found, Engine)
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now; it stays a container's when that is restarted."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Box:
    """One container; `ports` are those of this machine by the container's."""

    container: Any
    ports: Mapping[int, int]

    @property
    def id(self) -> str:
        return str(self.container.id)

    def state(self) -> Mapping[str, Any]:
        """Docker's `State`: Running, ExitCode, StartedAt; a container that is gone has ended."""
        import docker.errors

        try:
            self.container.reload()
        except docker.errors.NotFound:
            return {"Running": False, "ExitCode": 137}
        found: Mapping[str, Any] = self.container.attrs["State"]
        return found

    @property
    def running(self) -> bool:
        return bool(self.state()["Running"])

    def logs(self, tail: int | str = "all") -> str:
        """What it wrote, both streams."""
        with suppress(Exception):
            return str(self.container.logs(tail=tail).decode("utf-8", "replace"))
        return ""

    def restart(self) -> None:
        """Start it again on its port."""
        self.container.restart(timeout=1)

    def remove(self, grace: float = 0) -> None:
        """End it, after `grace` seconds for what it is at, and forget it."""
        with suppress(Exception):
            if grace:
                self.container.stop(timeout=int(grace))
            self.container.remove(force=True)

    def answers(self, port: int, path: str = "/", timeout: float = 2) -> int | None:
        """The status of a GET there, None if nothing answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=timeout)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def run(
    world: World,
    image: str,
    *,
    ports: Sequence[int] = (),
    environment: Mapping[str, str] = {},
    command: Sequence[str] | None = None,
    user: str | None = None,
    read_only: bool = False,
    folders: Mapping[str, Path] = {},
    beside: Box | None = None,
    cpus: float | None = None,
    memory: int | None = None,
) -> Box:
    """Start a container of a local image (its id).

    `folders` are mounted read-only by their place in the container; `beside` shares the network of
    another, which then publishes the ports of both. The command replaces the image's entrypoint.
    """
    published = {port: free_port() for port in ports} if beside is None else dict(beside.ports)
    network: dict[str, Any] = (
        {"ports": {f"{port}/tcp": ("127.0.0.1", at) for port, at in published.items()}}
        if beside is None
        else {"network_mode": f"container:{beside.id}"}
    )
    container = engine(world).client.containers.run(
        image,
        detach=True,
        labels={LABEL: str(world.folder)},
        environment=dict(environment),
        entrypoint=list(command) if command else None,
        user=user,
        read_only=read_only,
        tmpfs={"/tmp": "size=64m"} if read_only else None,
        volumes={str(path): {"bind": at, "mode": "ro"} for at, path in folders.items()},
        nano_cpus=int(cpus * 1e9) if cpus else None,
        mem_limit=memory,
        **network,
    )
    return Box(container, published)


def wait_until_it_answers(box: Box, port: int, path: str, seconds: float) -> str | None:
    """None once a GET is answered, whatever with; else "exited" or "silent"."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if box.answers(port, path) is not None:
            return None
        if not box.running:
            return "exited"
        time.sleep(0.1)
    return "silent"


def parse(image: str) -> tuple[str, str, str]:
    """Registry, repository and digest or tag; PullFailed if it is no reference."""
    found = re.fullmatch(
        r"([\w.-]+(?::\d+)?)/([a-z0-9][a-z0-9._/-]*)(?:@(sha256:[0-9a-f]{64})|:([\w][\w.-]{0,127}))",
        image,
    )
    if found is None:
        raise PullFailed(f"invalid reference format: {image}")
    return found[1], found[2], found[3] or found[4]


@dataclass(frozen=True)
class Found:
    """An image that may be pulled: its id, and where and by which token it comes."""

    config: str
    server: str = ""
    source: str = ""
    token: str = field(default="", repr=False)


def look_up(world: World, image: str, identity: Principal | None) -> Found:
    """An image as its registry has it for `identity`; PullFailed in an engine's words."""
    here = engine(world)
    server, repository, _ = parse(image)
    if image in here.offered:
        return Found(here.offered[image])
    _check_host(world, server)
    token = _token(world, server, repository, identity)
    return _found(world, image, token)


def _found(world: World, image: str, token: str) -> Found:
    server, repository, reference = parse(image)
    manifest = _manifest(world, server, repository, reference, token)
    source = f"{repository}@{manifest['digest']}"
    return Found(str(manifest["config"]["digest"]), server, source, token)


def _check_host(world: World, server: str) -> None:
    if server not in world.backends:
        raise PullFailed(
            f'Get "https://{server}/v2/": dial tcp: lookup {server} on 168.63.129.16:53: no such host'
        )


def pull(world: World, image: str, identity: Principal | None) -> str:
    """The id of an image in the engine, pulled as `identity`; PullFailed in an engine's words."""
    return _bring(world, look_up(world, image, identity))


def fetch(world: World, image: str, token: str) -> str:
    """The same with a token of the registry itself."""
    _check_host(world, parse(image)[0])
    return _bring(world, _found(world, image, token))


def _bring(world: World, found: Found) -> str:
    with _pulling:
        if found.source and not _is_here(found.config):
            _copy(world, found.server, found.source, found.token, found.config)
    return found.config


def _token(world: World, server: str, repository: str, identity: Principal | None) -> str:
    """The registry's token to pull with. Source: Azure/acr docs/AAD-OAuth.md."""
    unauthorized = _unauthorized(server, repository)
    if identity is None:
        raise unauthorized
    arm, _ = access_token(world, identity, ARM_AUDIENCES[1])
    refresh = _post(
        world,
        server,
        "/oauth2/exchange",
        grant_type="access_token",
        service=server,
        access_token=arm,
    )
    if refresh is None:
        raise unauthorized
    access = _post(
        world,
        server,
        "/oauth2/token",
        grant_type="refresh_token",
        service=server,
        scope=f"repository:{repository}:pull",
        refresh_token=refresh["refresh_token"],
    )
    if access is None:
        raise unauthorized
    return str(access["access_token"])


def _unauthorized(server: str, repository: str) -> PullFailed:
    """What somebody without a role there is told. Source: Azure/AKS#4593."""
    return PullFailed(
        f"failed to authorize: failed to fetch anonymous token: unexpected status from GET request to "
        f"https://{server}/oauth2/token?scope=repository%3A{repository.replace('/', '%2F')}%3Apull"
        f"&service={server}: 401 Unauthorized"
    )


def _post(world: World, host: str, path: str, **form: str) -> Mapping[str, Any] | None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    request = Request("POST", host, path, "", headers, urlencode(form).encode())
    answer = engine(world).routes.call(world, request)
    return answer.body if answer.status == 200 else None


def _manifest(
    world: World, server: str, repository: str, reference: str, token: str
) -> dict[str, Any]:
    """The manifest, its own digest added; indexes are not followed: our images have one platform."""
    connection = http.client.HTTPConnection(*world.backends[server].address, timeout=30)
    try:
        connection.request(
            "GET",
            f"/v2/{repository}/manifests/{reference}",
            headers={"Authorization": f"Bearer {token}", "Accept": MANIFESTS, "Host": server},
        )
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    where = f"{server}/{repository}{'@' if ':' in reference else ':'}{reference}"
    if answer.status in (401, 403):
        raise _unauthorized(server, repository)
    if answer.status != 200:
        raise PullFailed(
            f'failed to pull and unpack image "{where}": failed to resolve reference: {where}: not found'
        )
    found: dict[str, Any] = json.loads(content)
    return {**found, "digest": answer.headers["Docker-Content-Digest"]}


def _is_here(config: str) -> bool:
    done = subprocess.run(["docker", "image", "inspect", config], capture_output=True)
    return done.returncode == 0


def _copy(world: World, server: str, source: str, token: str, config: str) -> None:
    """Bring an image into the engine. The token is this stand-in's own and lives for an hour."""
    host, port = world.backends[server].address
    tag = f"slipway-standin:{config.removeprefix('sha256:')[:20]}"
    engine(world).copied.append(tag)
    done = subprocess.run(
        [
            *("skopeo", "copy", "--quiet", "--src-tls-verify=false", "--src-registry-token", token),
            f"docker://{host}:{port}/{source}",
            f"docker-daemon:{tag}",
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode or not _is_here(config):
        raise PullFailed(f"failed to copy: {done.stderr.strip()}")


def new_name(prefix: str) -> str:
    """A name as platforms give to a container: the prefix and eight characters."""
    return f"{prefix}_{new_id()[:8]}"


def add(parts: Parts) -> None:
    """The engine; its containers end with the world."""
    made = Engine(parts.world, parts.routes)
    parts.world.rooms["engine"] = made
    parts.world.closing.append(made.clear)
