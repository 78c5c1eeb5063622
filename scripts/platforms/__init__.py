"""Where a release runs. `connect()` is the one place that asks which platform it is."""

from __future__ import annotations

from pathlib import Path

from scripts.platforms.base import Platform
from scripts.settings import Settings


def connect(root: Path, settings: Settings) -> Platform:
    """The platform that `PLATFORM` names."""
    if settings.PLATFORM == "local":
        from scripts.platforms.local import LocalPlatform

        return LocalPlatform(root, settings)
    from scripts.platforms.azure import AzurePlatform

    return AzurePlatform(root, settings)
