"""Azure Machine Learning's data plane, as azureml-sdk (v1) speaks to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.azure.standin.ml import (
    artifacts,
    compute,
    datasets,
    datastores,
    discovery,
    environments,
    execution,
    history,
    metrics,
    models,
    pipelines,
    secrets,
    sizes,
    snapshots,
)
from tests.azure.standin.ml.workspace import Plane

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

MODULES = (
    discovery,
    history,
    metrics,
    artifacts,
    models,
    datastores,
    datasets,
    secrets,
    sizes,
    compute,
    environments,
    snapshots,
    execution,
    pipelines,
)


def add(parts: Parts) -> None:
    """Add the data plane; `parts.world.rooms["ml"]` is the Plane."""
    plane = Plane(parts)
    parts.world.rooms["ml"] = plane
    for module in MODULES:
        module.add(plane)
