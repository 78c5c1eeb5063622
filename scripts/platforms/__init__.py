"""Where a release runs. This is the one place that asks which platform it is."""

from __future__ import annotations

from pathlib import Path

from scripts.platforms.base import Platform
from scripts.records import Records
from scripts.settings import Settings


def connect(root: Path, settings: Settings) -> Platform:
    """The platform that `PLATFORM` names."""
    if settings.PLATFORM == "local":
        from scripts.platforms.local import LocalPlatform

        return LocalPlatform(root, settings)
    from scripts.platforms.azure import AzurePlatform

    return AzurePlatform(root, settings)


def open_records(root: Path, settings: Settings) -> Records:
    """The records of the platform, and of the target deployed to where it has several."""
    if settings.PLATFORM == "local":
        return Records(root / "build" / "local")
    return Records(root / "build" / "azure" / settings.WORKSPACE_NAME, settings.DEPLOY_TARGET)
