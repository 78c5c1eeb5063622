"""Azure: az for what is ARM, azureml-sdk for the workspace; both with az's login."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.platforms.azure.az import Az
from scripts.platforms.base import Images, Infrastructure, Pipelines, Service, Tracking, Training
from scripts.settings import Settings

if TYPE_CHECKING:
    from scripts.checks.finding import Check, Finding
    from scripts.verb import Context, Result


class AzurePlatform:
    """The parts share one `Az`; each is imported only when it is asked for."""

    name = "azure"

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.az = Az(settings)

    @property
    def checks(self) -> Sequence[Check]:
        def azure(root: Path, settings: Settings) -> Iterator[Finding]:
            """Everything on Azure that a run needs."""
            return self.infrastructure.findings()

        return (azure,)

    @cached_property
    def infrastructure(self) -> Infrastructure:
        from scripts.platforms.azure.infrastructure import AzureInfrastructure

        return AzureInfrastructure(self.root, self.settings, self.az)

    @cached_property
    def training(self) -> Training:
        from scripts.platforms.azure.training import Cluster

        return Cluster(self.root, self.settings, self.az)

    @cached_property
    def tracking(self) -> Tracking:
        from scripts.platforms.azure.tracking import AzureTracking

        return AzureTracking(self.root, self.settings, self.az)

    @cached_property
    def pipelines(self) -> Pipelines:
        from scripts.platforms.azure.pipelines import AzurePipelines

        return AzurePipelines(self.root, self.settings, self.az)

    @cached_property
    def images(self) -> Images:
        from scripts.platforms.azure.images import AzureImages

        return AzureImages(self.root, self.settings, self.az)

    @cached_property
    def service(self) -> Service:
        from scripts.platforms.azure.service import connect_service

        return connect_service(self.root, self.settings, self.az)

    def show_runs(self, context: Context) -> Result:
        from scripts.platforms.azure.place import place
        from scripts.verb import Result

        where = place(self.root, self.settings, self.az)
        workspace = (
            f"/subscriptions/{where.subscription}/resourcegroups/{where.group}"
            f"/workspaces/{where.workspace}"
        )
        return Result(f"https://ml.azure.com/experiments?wsid={workspace}&tid={where.tenant}")
