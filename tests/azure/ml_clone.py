"""A clone whose workspace is there already: what `provision` would have left, without its minutes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from scripts.platforms.azure.place import Place
from tests import rooms
from tests.azure.conftest import AzureClone, make_clone
from tests.azure.ml_place import ACCOUNT, GROUP, RG, STORAGE_ID, WORKSPACE, WS_ID, make_place
from tests.azure.standin.standin import StandIn
from tests.azure.standin.world import SUBSCRIPTION, TENANT, new_id

IDENTITIES = "Microsoft.ManagedIdentity/userAssignedIdentities"
#: Runs are processes of this environment where containers are not asked for, so no image is pushed.
IMAGES = """
class AzureImages:
    engine = "none"

    def __init__(self, root, settings, az):
        pass

    def push_toolbox(self):
        return "kilncr.azurecr.io/slipway/toolbox@sha256:" + "5" * 64
"""


def make_ml_clone(root: Path, path: Path, standin: StandIn) -> AzureClone:
    """A clone at `path`, signed in to nothing yet, on a workspace made in the stand-in."""
    make_place(standin)
    standin.world.resources[RG.lower()]["properties"] |= {"provisioningState": "Succeeded"}
    node = f"{RG}/providers/{IDENTITIES}/node"
    standin.world.resources[node.lower()] = {
        "id": node,
        "name": "node",
        "type": IDENTITIES,
        "location": "westeurope",
        "tags": {},
        "properties": {"principalId": new_id(), "clientId": new_id(), "tenantId": TENANT},
    }
    clone = make_clone(root, path, standin)
    clone.save(RESOURCE_GROUP=GROUP, WORKSPACE_NAME=WORKSPACE)
    (path / "scripts" / "platforms" / "azure" / "images.py").write_text(IMAGES)
    providers = f"{RG}/providers"
    known = {
        "subscription": SUBSCRIPTION,
        "tenant": TENANT,
        "group": GROUP,
        "region": "westeurope",
        "workspace": WORKSPACE,
        "workspace_id": WS_ID,
        "registry": "kilncr",
        "registry_id": f"{providers}/Microsoft.ContainerRegistry/registries/kilncr",
        "registry_server": "kilncr.azurecr.io",
        "storage": ACCOUNT,
        "storage_id": STORAGE_ID,
        "cluster_identity_id": node,
    }
    # The rest is for what no run needs.
    record = {field.name: known.get(field.name, "unused") for field in fields(Place)}
    clone.folder.mkdir(parents=True)
    (clone.folder / "provision.json").write_text(json.dumps(record))
    return clone


def worse_model(clone: AzureClone) -> None:
    """From now on the estimator learns nothing but a constant near the mean."""
    estimator = rooms.REGRESSOR_ESTIMATOR.replace('{"alpha": 1.0}', '{"alpha": 1e7}')
    (clone.path / "model" / "estimator.py").write_text(estimator)


def model_versions(clone: AzureClone, name: str = "wood") -> list[Any]:
    """The versions of a model as the stand-in's registry has them, the oldest first."""
    workspace = clone.standin.world.rooms["ml"].workspace(WS_ID)
    found = [model for model in workspace.models.values() if model["name"] == name]
    return sorted(found, key=lambda model: int(model["version"]))


def runs(clone: AzureClone) -> dict[str, Any]:
    """The runs that the stand-in knows, by id, in the order they were begun."""
    found: dict[str, Any] = clone.standin.world.rooms["ml"].workspace(WS_ID).runs
    return found


def borrowed(shared: AzureClone) -> Iterator[AzureClone]:
    """A module's clone for one test: the tests' own room before it, the settings again after it."""
    rooms.write_room(shared.path)
    before = dict(shared.settings)
    yield shared
    shared.settings = before
    shared.save()
    shared.standin.world.faults.clear()
