"""Azure ML workspaces as ARM has them; their data plane is in the folder ml/.

Source: REST spec Microsoft.MachineLearningServices workspaceRP.json (2024-10-01)
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

from tests.azure.standin import generic, identities, operations, resources
from tests.azure.standin.arm import check_locks, find_group
from tests.azure.standin.directory import directory
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.resources import ResourceId, ResourceType, of_type
from tests.azure.standin.routes import ARM
from tests.azure.standin.shapes import ANY, FLAG, SERVER, TEXT, TRACKED, Optional, check_shape
from tests.azure.standin.world import TENANT, World, new_id, now

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

WORKSPACE = "Microsoft.MachineLearningServices/workspaces"
VERSIONS = (
    "2020-02-02",
    "2020-06-01",
    "2021-01-01",
    "2021-04-01",
    "2021-07-01",
    "2022-05-01",
    "2022-10-01",
    "2023-04-01",
    "2023-10-01",
    "2024-04-01",
    "2024-10-01",
    "2025-06-01",
)
SPEC = "REST spec: Microsoft.MachineLearningServices workspaceRP.json"
#: What a workspace stands on, with the type each must be of.
NEEDS = {
    "storageAccount": "Microsoft.Storage/storageAccounts",
    "keyVault": "Microsoft.KeyVault/vaults",
    "applicationInsights": "Microsoft.Insights/components",
    "containerRegistry": "Microsoft.ContainerRegistry/registries",
}
SHAPE = {
    **TRACKED,
    "identity": identities.BLOCK,
    "kind": Optional({"Default", "Hub", "Project", "FeatureStore"}),
    "sku": Optional({"name": {"Basic"}, "tier": Optional({"Basic"})}),
    "systemData": SERVER,
    "properties": {
        "friendlyName": Optional(TEXT),
        "description": Optional(TEXT),
        "storageAccount": TEXT,
        "keyVault": TEXT,
        "applicationInsights": Optional(TEXT),
        "containerRegistry": Optional(TEXT),
        "hbiWorkspace": Optional(FLAG),
        "publicNetworkAccess": Optional({"Enabled", "Disabled"}),
        "v1LegacyMode": Optional(FLAG),
        "imageBuildCompute": Optional(TEXT),
        "managedNetwork": Optional(ANY),
        "primaryUserAssignedIdentity": Optional(TEXT),
        "systemDatastoresAuthMode": Optional({"accessKey", "identity", "userDelegationSAS"}),
        "encryption": Optional(ANY),
        "workspaceId": SERVER,
        "discoveryUrl": SERVER,
        "provisioningState": SERVER,
        "tenantId": SERVER,
        "creationTime": SERVER,
        "mlFlowTrackingUri": SERVER,
        "notebookInfo": SERVER,
        "privateEndpointConnections": SERVER,
        "storageHnsEnabled": SERVER,
        "allowPublicAccessWhenBehindVnet": SERVER,
        "softDeleteRetentionInDays": SERVER,
    },
}


def _check(world: World, target: ResourceId, body: Json) -> None:
    check_shape(body, SHAPE, "Workspace")
    if not re.fullmatch(r"[a-zA-Z0-9][\w-]{2,32}", target.name):
        raise Refused(
            400,
            "BadRequest",
            f"Workspace name '{target.name}' is invalid. It must be between 3 and 33 characters long. "
            "Its first character has to be alphanumeric, and the rest may contain hyphens and "
            "underscores. No whitespace is allowed.",
        )
    before = world.resources.get(target.key)
    if before is None and f"workspace/{target.key}" in world.deleted:
        # Source: Azure/ResourceModules issue 3596.
        raise Refused(
            400,
            "BadRequest",
            "Soft-deleted workspace exists. Please purge or recover it. https://aka.ms/wsoftdelete",
        )
    for name, kind in NEEDS.items():
        value = body["properties"].get(name)
        if value is not None and ResourceId.parse(value).type.lower() != kind.lower():
            raise Refused(400, "ValidationError", f"{name} '{value}' is not the id of a {kind}.")
        fixed = before is not None and name in ("storageAccount", "keyVault")
        if before is not None and fixed and value.lower() != before["properties"][name].lower():
            raise Refused(400, "ValidationError", f"{name} of a workspace cannot be changed.")


def _put(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    asked = {name: value for name, value in body["properties"].items() if value is not None}
    for name in NEEDS:
        if name in asked and asked[name].lower() not in world.resources:
            raise Refused(
                400,
                "ValidationError",
                f"Missing dependent resources in workspace json: {name} {asked[name]} was not found.",
            )
    had = before["properties"] if before else {}
    place = body["location"]
    url = f"https://{place}.api.azureml.ms"
    properties = {
        "friendlyName": target.name,
        "description": "",
        "hbiWorkspace": False,
        "publicNetworkAccess": "Enabled",
        "v1LegacyMode": False,
        "containerRegistry": None,
        **asked,
        "workspaceId": had.get("workspaceId") or new_id(),
        "discoveryUrl": f"{url}/discovery",
        "mlFlowTrackingUri": f"azureml://{place}.api.azureml.ms/mlflow/v1.0{target.text}",
        "tenantId": TENANT,
        "creationTime": had.get("creationTime") or now(),
        "provisioningState": "Succeeded",
        "privateEndpointConnections": [],
    }
    return {
        **body,
        "kind": body.get("kind") or "Default",
        "sku": {"name": "Basic", "tier": "Basic"},
        "identity": identities.given(world, target, body["identity"]),
        "properties": properties,
    }


def _delete(world: World, target: ResourceId, resource: Json) -> None:
    """Soft delete: the name stays taken for 14 days, or until it is purged."""
    world.deleted[f"workspace/{target.key}"] = copy.deepcopy(resource)
    directory(world).remove_identity(target.text)


def add(parts: Parts) -> None:
    """The type, deleting for good, and the keys."""
    routes, types = parts.routes, parts.types
    types.add(
        ResourceType(WORKSPACE, VERSIONS, SPEC, check=_check, put=_put, delete=_delete, pending=0.5)
    )
    path = f"/subscriptions/{{s}}/resourceGroups/{{g}}/providers/{WORKSPACE}/{{w}}"

    @routes.add(ARM, "DELETE", path, source=SPEC, versions=VERSIONS)
    def remove(world: World, request: Request, s: str, g: str, w: str) -> Answer:
        find_group(world, g)
        key = request.path.lower()
        purge = request.query.get("forceToPurge", "false").lower() == "true"
        there = key in world.resources
        if not there and not (purge and f"workspace/{key}" in world.deleted):
            return Answer(204)
        check_locks(world, request.path)

        def finish() -> Json:
            if key in world.resources:
                generic.delete(world, types, request.path)
            if purge:
                world.deleted.pop(f"workspace/{key}", None)
            return {}

        operation = operations.begin(world, 0.5, finish)
        headers = {
            **operations.location_headers(operation, request.api_version),
            **operations.status_headers(operation, request.api_version),
        }
        return Answer(202, None, headers)

    @routes.add(
        ARM,
        "GET",
        f"/subscriptions/{{s}}/providers/{WORKSPACE}",
        source=f"{SPEC}, ListBySubscription; soft-deleted ones too: Azure/azure-powershell issue 28286",
        versions=VERSIONS,
    )
    def everywhere(world: World, request: Request, s: str) -> Json:
        gone = [each for key, each in world.deleted.items() if key.startswith("workspace/")]
        return {"value": [*of_type(world, WORKSPACE), *gone]}

    @routes.add(ARM, "POST", f"{path}/listKeys", source=SPEC, versions=VERSIONS)
    def keys(world: World, request: Request, s: str, g: str, w: str) -> Json:
        workspace = resources.find(world, request.path.rpartition("/")[0])
        used = workspace["properties"]
        insights = world.resources.get(str(used.get("applicationInsights")).lower())
        return {
            "userStorageKey": world.keys.get((used["storageAccount"].lower(), "key1")),
            "userStorageResourceId": used["storageAccount"],
            "appInsightsInstrumentationKey": (
                insights["properties"]["InstrumentationKey"] if insights else None
            ),
            "containerRegistryCredentials": None,
            "notebookAccessKeys": None,
        }
