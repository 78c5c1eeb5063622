"""The embedded default: MLflow on SQLite, and the service on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.errors import UsageError
from scripts.platforms.base import Images, Infrastructure, Pipelines, Service, Tracking, Training
from scripts.settings import Settings

if TYPE_CHECKING:
    from scripts.checks.finding import Check
    from scripts.verb import Context, Result


class InThisProcess:
    """`Training` where the verb runs."""

    def train(self, context: Context, fit: Callable[[Context], Result]) -> Result:
        return fit(context)

    def restore(self, context: Context, file: Path) -> None:
        return


class LocalPlatform:
    """Everything on this machine: containers where a Docker engine runs, processes where not."""

    name = "local"

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.has_engine = os.environ.get("SLIPWAY_ENGINE") == "docker"

    @property
    def checks(self) -> Sequence[Check]:
        from scripts.checks import engine, release

        return (engine.ports, release.registry, release.service)

    @property
    def infrastructure(self) -> Infrastructure:
        raise UsageError(
            "PLATFORM=local needs nothing provisioned and no login",
            "set PLATFORM=azure in .env for what is on Azure",
        )

    @property
    def pipelines(self) -> Pipelines:
        raise UsageError(
            "PLATFORM=local has no pipelines to publish",
            "`make register` does the three stages here; set PLATFORM=azure in .env for Azure ML's",
        )

    @property
    def training(self) -> Training:
        return InThisProcess()

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

    def show_runs(self, context: Context) -> Result:
        from scripts.platforms.local.page import show_runs

        return show_runs(context)
