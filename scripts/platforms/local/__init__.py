"""The embedded default: MLflow on SQLite, and the service on this machine."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from scripts.platforms.base import Images, Service, Tracking
from scripts.settings import Settings


class LocalPlatform:
    """Everything on this machine: containers where a Docker engine runs, processes where not."""

    name = "local"

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.has_engine = os.environ.get("SLIPWAY_ENGINE") == "docker"

    @cached_property
    def tracking(self) -> Tracking:
        from scripts.platforms.local.tracking import MlflowTracking

        return MlflowTracking(self.root)

    @cached_property
    def images(self) -> Images:
        if self.has_engine:
            from scripts.platforms.local.images import DockerImages

            return DockerImages(self.root, self.settings)
        from scripts.platforms.local.images import NoImages

        return NoImages()

    @cached_property
    def service(self) -> Service:
        if self.has_engine:
            from scripts.platforms.local.containers import ContainerService

            return ContainerService(self.root, self.settings)
        from scripts.platforms.local.processes import ProcessService

        return ProcessService(self.root, self.settings)
