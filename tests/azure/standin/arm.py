"""Azure Resource Manager: tenants, subscriptions, regions, resource groups."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.azure.standin import operations, resources
from tests.azure.standin.access import caller, roles
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.resources import ResourceId, ResourceType, ResourceTypes, of_type
from tests.azure.standin.routes import ARM
from tests.azure.standin.shapes import SERVER, TAGS, TEXT, Optional, check_shape
from tests.azure.standin.world import REGIONS, SUBSCRIPTION, TENANT, World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

GROUP = "Microsoft.Resources/resourceGroups"
LOCK = "Microsoft.Authorization/locks"
RECORDED = "azure-cli resource/tests/latest/recordings/test_resource_group.yaml"
SUBSCRIPTIONS = ("2016-06-01", "2018-06-01", "2019-11-01", "2021-01-01", "2022-12-01")
GROUPS = (
    "2015-11-01",
    "2018-05-01",
    "2019-07-01",
    "2020-06-01",
    "2020-10-01",
    "2021-04-01",
    "2022-09-01",
    "2023-07-01",
    "2024-03-01",
    "2024-07-01",
    "2024-11-01",
    "2025-03-01",
    "2025-04-01",
)


def subscription() -> Json:
    """The one subscription there is."""
    return {
        "id": f"/subscriptions/{SUBSCRIPTION}",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": SUBSCRIPTION,
        "tenantId": TENANT,
        "displayName": "Slipway's stand-in (not Azure)",
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
    }


def region(text: str) -> str:
    """A region's short name from either of its names: "West Europe" is westeurope."""
    return text.replace(" ", "").lower()


def group_id(name: str) -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{name}"


def find_group(world: World, name: str) -> Json:
    """A group, Refused (404) if it is not there."""
    found = world.resources.get(group_id(name).lower())
    if found is None:
        raise Refused(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")
    return found


def check_region(text: object, kind: str) -> str:
    """The region's short name; Refused as ARM does if there is none of that name."""
    if not isinstance(text, str) or not text:
        raise Refused(
            400, "LocationRequired", "The location property is required for this definition."
        )
    if region(text) not in REGIONS:
        raise Refused(
            400,
            "LocationNotAvailableForResourceType",
            f"The provided location '{text}' is not available for resource type '{kind}'. List of "
            f"available regions for the resource type is '{','.join(sorted(REGIONS))}'.",
        )
    return region(text)


def check_locks(world: World, scope: str) -> None:
    """Refused (409) if a lock on the scope, above or below it forbids deleting it."""
    for lock in of_type(world, LOCK):
        if str(lock["id"]).lower() == scope.lower():
            continue
        where = lock["id"].rpartition("/providers/")[0].lower()
        wanted = scope.lower()
        if wanted == where or wanted.startswith(where + "/") or where.startswith(wanted + "/"):
            raise Refused(
                409,
                "ScopeLocked",
                f"The scope '{scope}' cannot perform delete operation because following scope(s) are "
                f"locked: '{lock['id'].rpartition('/providers/')[0]}'. Please remove the lock and try again.",
            )


def _check_lock(world: World, target: ResourceId, body: Json) -> None:
    check_shape(
        body,
        {
            "id": SERVER,
            "name": SERVER,
            "type": SERVER,
            "properties": {
                "level": {"CanNotDelete", "ReadOnly"},
                "notes": Optional(TEXT),
                "owners": SERVER,
            },
        },
        LOCK,
    )


def delete_group(world: World, types: ResourceTypes, name: str) -> Json:
    """The group and all in it; soft-deleting types keep what they keep.

    What others still use is tried again once they are gone, as ARM does.
    Source: https://learn.microsoft.com/azure/azure-resource-manager/management/delete-resource-group
    """
    key = group_id(name).lower()
    left = sorted(
        (k for k in world.resources if k.startswith(key + "/")), key=lambda k: k.count("/")
    )
    while left:
        used: list[str] = []
        conflict: Refused | None = None
        for each in left:
            if each not in world.resources:
                continue
            try:
                resources.delete(world, types, str(world.resources[each]["id"]))
            except Refused as refused:
                used.append(each)
                conflict = refused
        if conflict is not None and len(used) == len(left):
            raise conflict
        left = used
    world.resources.pop(key, None)
    return {}


def _put_group(world: World, request: Request, name: str) -> Answer:
    body = request.mapping()
    check_shape(
        body,
        {
            "location": TEXT,
            "tags": TAGS,
            "managedBy": Optional(TEXT),
            "properties": SERVER,
            "id": SERVER,
            "name": SERVER,
            "type": SERVER,
        },
        GROUP,
    )
    if not re.fullmatch(r"[-\w.()]{0,89}[-\w()]", name):
        raise Refused(
            400,
            "InvalidResourceGroup",
            f"The provided resource group name '{name}' has these invalid characters: only letters, "
            "digits, '-', '.', '(', ')' and '_' are allowed, and the name must not end with '.'.",
        )
    where = check_region(body["location"], GROUP)
    before = world.resources.get(group_id(name).lower())
    if before is not None and before["location"] != where:
        raise Refused(
            409,
            "InvalidResourceGroupLocation",
            f"Invalid resource group location '{where}'. The Resource group already exists in location "
            f"'{before['location']}'.",
        )
    if before is not None and before["properties"]["provisioningState"] == "Deleting":
        raise deprovisioning(name)
    made = {
        "id": group_id(name) if before is None else before["id"],
        "name": name if before is None else before["name"],
        "type": GROUP,
        "location": where,
        "tags": body.get("tags") or {},
        "properties": {"provisioningState": "Succeeded"},
    }
    world.resources[group_id(name).lower()] = made
    return Answer(201 if before is None else 200, made)


def deprovisioning(name: str) -> Refused:
    """What any write into a group on its way out is told."""
    return Refused(
        409,
        "ResourceGroupBeingDeleted",
        f"The resource group '{name}' is in deprovisioning state and cannot perform this operation.",
    )


def add(parts: Parts) -> None:
    """Routes of tenants, subscriptions and groups; locks."""
    routes, types = parts.routes, parts.types
    versions = ("2016-09-01", "2017-04-01", "2020-05-01")
    source = "REST spec: Microsoft.Authorization locks.json"
    types.add(ResourceType(LOCK, versions, source, check=_check_lock))

    @routes.add(ARM, "GET", "/tenants", source="azure-cli profile", versions=SUBSCRIPTIONS)
    def tenants(world: World, request: Request) -> Json:
        tenant = {
            "id": f"/tenants/{TENANT}",
            "tenantId": TENANT,
            "countryCode": "NL",
            "displayName": "Slipway",
            "domains": ["slipway.example"],
            "tenantCategory": "Home",
            "defaultDomain": "slipway.example",
            "tenantType": "AAD",
        }
        return {"value": [tenant]}

    @routes.add(
        ARM,
        "GET",
        "/subscriptions",
        source="REST spec: Microsoft.Resources subscriptions.json",
        versions=SUBSCRIPTIONS,
    )
    def subscriptions(world: World, request: Request) -> Json:
        who = caller(world, request).object_id
        mine = subscription()
        # A role on anything below makes the subscription visible.
        has = any(roles(world, who, mine["id"])) or any(
            assignment["properties"]["principalId"] == who
            for assignment in of_type(world, "Microsoft.Authorization/roleAssignments")
        )
        return {
            "value": [mine] if has else [],
            "count": {"type": "Total", "value": int(has)},
        }

    @routes.add(
        ARM,
        "GET",
        "/subscriptions/{s}",
        source="REST spec: Microsoft.Resources subscriptions.json",
        versions=SUBSCRIPTIONS,
    )
    def one(world: World, request: Request, s: str) -> Json:
        return subscription()

    @routes.add(
        ARM,
        "GET",
        "/subscriptions/{s}/locations",
        source="REST spec: Microsoft.Resources subscriptions.json",
        versions=SUBSCRIPTIONS,
    )
    def locations(world: World, request: Request, s: str) -> Json:
        return {
            "value": [
                {
                    "id": f"/subscriptions/{SUBSCRIPTION}/locations/{name}",
                    "name": name,
                    "type": "Region",
                    "displayName": shown,
                    "regionalDisplayName": shown,
                    "metadata": {"regionType": "Physical", "regionCategory": "Recommended"},
                }
                for name, shown in REGIONS.items()
            ]
        }

    group_path = "/subscriptions/{s}/resourcegroups/{g}"

    @routes.add(ARM, "GET", "/subscriptions/{s}/resourcegroups", source=RECORDED, versions=GROUPS)
    def groups(world: World, request: Request, s: str) -> Json:
        return {"value": of_type(world, GROUP)}

    @routes.add(ARM, "GET PUT HEAD PATCH", group_path, source=RECORDED, versions=GROUPS)
    def group(world: World, request: Request, s: str, g: str) -> Answer:
        if request.method == "HEAD":
            return Answer(204 if group_id(g).lower() in world.resources else 404)
        if request.method == "PUT":
            return _put_group(world, request, g)
        found = find_group(world, g)
        if request.method == "PATCH":
            body = request.mapping()
            check_shape(body, {"tags": TAGS, "properties": SERVER, "name": SERVER}, GROUP)
            found["tags"] = body.get("tags", found["tags"]) or {}
        return Answer(200, found)

    @routes.add(ARM, "DELETE", group_path, source=RECORDED, versions=GROUPS)
    def remove(world: World, request: Request, s: str, g: str) -> Answer:
        found = find_group(world, g)
        check_locks(world, found["id"])
        found["properties"]["provisioningState"] = "Deleting"
        operation = operations.begin(world, 0.5, lambda: delete_group(world, types, g))
        return Answer(202, None, operations.location_headers(operation, request.api_version))
