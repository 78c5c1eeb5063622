"""What the Docker engine holds of one clone's service, and where it is reached."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.platforms.base import Deployment
from scripts.platforms.local import container as box
from scripts.platforms.local import engine
from scripts.platforms.local.front import PORT as FRONT_PORT
from scripts.platforms.local.front import SERVICE_PORT, Front
from scripts.proof import is_healthy
from scripts.settings import clone_id

if TYPE_CHECKING:
    from docker import DockerClient


class Inventory:
    """The containers of the clone at `root`; the front is to be published on `port`."""

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.port = port
        self.clone = clone_id(root)
        self.network = f"slipway-{self.clone}"

    @cached_property
    def client(self) -> DockerClient:
        return engine.connect()

    @cached_property
    def front(self) -> Front:
        return Front(self.client, self.root, self.clone, self.port)

    def history(self) -> list[Deployment]:
        """The deployments that were proven, the newest first."""
        containers = self.containers()
        serving = self.serving(containers)
        healthy = serving is not None and is_healthy(self.endpoint_url())
        return [
            self.deployment(each, serving=each is serving, healthy=each is serving and healthy)
            for each in containers
            if box.is_proven(each)
        ]

    def containers(self) -> list[Any]:
        """The service's containers in every state, the newest deployment first."""
        found = self.client.containers.list(
            all=True,
            filters={"label": [f"slipway.clone={self.clone}", "slipway.role=service"]},
            ignore_removed=True,
        )
        return sorted(found, key=box.number, reverse=True)

    def serving(self, containers: Sequence[Any]) -> Any | None:
        """The container that the front sends requests to; the newest where it is being switched."""
        active = [each for each in containers if box.is_proven(each) and box.is_active(each)]
        servers = self.front.servers() if active else {}
        for container in active:
            server = servers.get(box.colour(container))
            if server is not None and server.wanted:
                return container
        return None

    def deployment(
        self, container: Any, *, serving: bool = False, healthy: bool = False
    ) -> Deployment:
        labels = container.labels
        return Deployment(
            number=box.number(container),
            model_name=labels["slipway.model"],
            version=int(labels["slipway.version"]),
            inputs=labels["slipway.inputs"],
            image_id=container.attrs["Image"],
            kind="container",
            url=self.host_url(),
            inner_url=f"http://{self.front.name}:{FRONT_PORT}",
            previous=box.unlabel(labels["slipway.previous"]),
            rejected=box.unlabel(labels["slipway.rejected"]),
            serving=serving,
            healthy=healthy,
            started=container.attrs["Created"][:19] + "Z",
        )

    def on_network(self) -> bool:
        return os.environ.get("SLIPWAY_NETWORK") == self.network

    def endpoint_url(self) -> str:
        """The front, as this process reaches it."""
        if self.on_network():
            return f"http://{self.front.name}:{FRONT_PORT}"
        return self.host_url()

    def host_url(self) -> str:
        """The front, as programs on this machine reach it."""
        return f"http://127.0.0.1:{self.front.published() or self.port}"

    def url(self, container: Any) -> str:
        """One container itself, as this process reaches it."""
        host = container.name if self.on_network() else box.address(container, self.network)
        return f"http://{host}:{SERVICE_PORT}"
