"""A workspace for the tests of the data plane alone, and a client for it."""

from __future__ import annotations

import uuid

from tests.azure.standin.directory import access_token, directory
from tests.azure.standin.resources import ResourceType
from tests.azure.standin.routes import ARM
from tests.azure.standin.standin import StandIn
from tests.azure.standin.world import APP_OBJECT, SUBSCRIPTION, TENANT

GROUP, WORKSPACE, ACCOUNT = "kiln-rg", "kiln-ws", "kilnstore"
RG = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
GROUPS = "Microsoft.Resources/resourceGroups"
WORKSPACES = "Microsoft.MachineLearningServices/workspaces"
WS_ID = f"{RG}/providers/{WORKSPACES}/{WORKSPACE}"
STORAGE_ID = f"{RG}/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}"


def make_place(standin: StandIn, region: str = "westeurope") -> None:
    """The resources a workspace needs, as if they had been deployed."""
    kinds = {
        RG: (GROUPS, GROUP, {"provisioningState": "Succeeded"}),
        STORAGE_ID: ("Microsoft.Storage/storageAccounts", ACCOUNT, {}),
        WS_ID: (
            WORKSPACES,
            WORKSPACE,
            {
                "workspaceId": str(uuid.uuid4()),
                "friendlyName": WORKSPACE,
                "description": "",
                "creationTime": "2026-01-01T00:00:00.0000000Z",
                "discoveryUrl": f"https://{region}.api.azureml.ms/discovery",
                "storageAccount": STORAGE_ID,
                "keyVault": f"{RG}/providers/Microsoft.KeyVault/vaults/kiln-kv",
                "applicationInsights": f"{RG}/providers/Microsoft.Insights/components/kiln-ai",
                "containerRegistry": f"{RG}/providers/Microsoft.ContainerRegistry/registries/kilncr",
                "provisioningState": "Succeeded",
            },
        ),
    }
    for key, (kind, name, properties) in kinds.items():
        standin.world.resources[key.lower()] = {
            "id": key,
            "name": name,
            "type": kind,
            "location": region,
            "tags": {},
            "properties": properties,
            "sku": {"name": "Basic", "tier": "Basic"},
            "identity": {
                "type": "SystemAssigned",
                "principalId": str(uuid.uuid4()),
                "tenantId": TENANT,
            },
        }

    # ARM's own type, where it is there.
    if all(kind.name != WORKSPACES for kind in standin.types):
        standin.types.add(ResourceType(WORKSPACES, ("2022-05-01",), "the tests' own"))


def client_environment(standin: StandIn) -> dict[str, str]:
    """What a client is told of the place."""
    world = standin.world
    token, _ = access_token(world, directory(world).principals[APP_OBJECT], f"https://{ARM}/")
    return {
        "TOKEN": token,
        "TENANT": TENANT,
        "SUBSCRIPTION": SUBSCRIPTION,
        "GROUP": GROUP,
        "WORKSPACE": WORKSPACE,
    }
