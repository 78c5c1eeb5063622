"""Hosts that the clients call by the way, and that have nothing to say here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.azure.standin.messages import Answer, Request
from tests.azure.standin.world import World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts


def add(parts: Parts) -> None:
    """azureml's telemetry is swallowed; az finds no newer release of itself."""
    routes = parts.routes

    @routes.add(
        "dc.services.visualstudio.com", "POST", "/{path...}", source="applicationinsights: sender"
    )
    def telemetry(world: World, request: Request, path: str) -> Answer:
        return Answer(200, {"itemsReceived": 0, "itemsAccepted": 0, "errors": []})

    @routes.add("azcliprod.blob.core.windows.net", "GET HEAD", "/{path...}", source="*assumed*")
    def releases(world: World, request: Request, path: str) -> Answer:
        return Answer(404)
