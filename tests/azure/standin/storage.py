"""Storage accounts as ARM has them; their blobs are another module's.

Source: REST spec Microsoft.Storage storage.json (2023-05-01), blob.json; azure-cli
storage/tests/latest/recordings/test_create_storage_account.yaml
"""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from typing import TYPE_CHECKING

from tests.azure.standin import resources
from tests.azure.standin.messages import Json, Refused, Request
from tests.azure.standin.resources import ResourceId, ResourceType, of_type
from tests.azure.standin.routes import ARM
from tests.azure.standin.shapes import (
    ANY,
    FLAG,
    NUMBER,
    SERVER,
    TEXT,
    TRACKED,
    Optional,
    check_shape,
)
from tests.azure.standin.taken import taken
from tests.azure.standin.world import World, now

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

ACCOUNT = "Microsoft.Storage/storageAccounts"
BLOBS = f"{ACCOUNT}/blobServices"
CONTAINER = f"{BLOBS}/containers"
VERSIONS = (
    "2019-06-01",
    "2021-09-01",
    "2022-09-01",
    "2023-01-01",
    "2023-05-01",
    "2024-01-01",
    "2025-01-01",
    "2025-06-01",
    "2025-08-01",
)
SPEC = "REST spec: Microsoft.Storage storage.json"
QUOTA = "storage quota exceeded"
SKUS = {
    "Standard_LRS",
    "Standard_ZRS",
    "Standard_GRS",
    "Standard_GZRS",
    "Standard_RAGRS",
    "Standard_RAGZRS",
    "Premium_LRS",
    "Premium_ZRS",
}
_SERVICE = Optional(
    {
        "enabled": Optional(FLAG),
        "keyType": Optional({"Account", "Service"}),
        "lastEnabledTime": SERVER,
    }
)
ACCOUNT_SHAPE = {
    **TRACKED,
    "kind": {"Storage", "StorageV2", "BlobStorage", "FileStorage", "BlockBlobStorage"},
    "sku": {"name": SKUS, "tier": SERVER},
    "identity": Optional(ANY),
    "properties": Optional(
        {
            "accessTier": Optional({"Hot", "Cool", "Cold", "Premium"}),
            "minimumTlsVersion": Optional({"TLS1_0", "TLS1_1", "TLS1_2", "TLS1_3"}),
            "supportsHttpsTrafficOnly": Optional(FLAG),
            "allowBlobPublicAccess": Optional(FLAG),
            "allowSharedKeyAccess": Optional(FLAG),
            "allowCrossTenantReplication": Optional(FLAG),
            "defaultToOAuthAuthentication": Optional(FLAG),
            "isHnsEnabled": Optional(FLAG),
            "publicNetworkAccess": Optional({"Enabled", "Disabled", "SecuredByPerimeter"}),
            "networkAcls": Optional(
                {
                    "defaultAction": {"Allow", "Deny"},
                    "bypass": Optional(TEXT),
                    "ipRules": Optional([ANY]),
                    "virtualNetworkRules": Optional([ANY]),
                    "resourceAccessRules": Optional([ANY]),
                }
            ),
            "encryption": Optional(
                {
                    "keySource": Optional({"Microsoft.Storage", "Microsoft.Keyvault"}),
                    "requireInfrastructureEncryption": Optional(FLAG),
                    "services": Optional(
                        {
                            "blob": _SERVICE,
                            "file": _SERVICE,
                            "table": _SERVICE,
                            "queue": _SERVICE,
                        }
                    ),
                }
            ),
            "primaryEndpoints": SERVER,
            "primaryLocation": SERVER,
            "statusOfPrimary": SERVER,
            "creationTime": SERVER,
            "provisioningState": SERVER,
            "keyCreationTime": SERVER,
            "privateEndpointConnections": SERVER,
        }
    ),
}
_RETENTION = Optional(
    {"enabled": Optional(FLAG), "days": Optional(NUMBER), "allowPermanentDelete": Optional(FLAG)}
)
BLOBS_SHAPE = {
    "id": SERVER,
    "name": SERVER,
    "type": SERVER,
    "sku": SERVER,
    "properties": Optional(
        {
            "deleteRetentionPolicy": _RETENTION,
            "containerDeleteRetentionPolicy": _RETENTION,
            "isVersioningEnabled": Optional(FLAG),
            "cors": SERVER,
            "changeFeed": SERVER,
            "restorePolicy": SERVER,
            "defaultServiceVersion": SERVER,
        }
    ),
}
CONTAINER_SHAPE = {
    "id": SERVER,
    "name": SERVER,
    "type": SERVER,
    "properties": Optional(
        {"publicAccess": Optional({"None", "Blob", "Container"}), "metadata": Optional(ANY)}
    ),
}


def invalid_name(name: str) -> Refused:
    """Source: azure-cli's recordings of storage account create."""
    return Refused(
        400,
        "AccountNameInvalid",
        f"{name} is not a valid storage account name. Storage account name must be between 3 and 24 "
        "characters in length and use numbers and lower-case letters only.",
    )


def _elsewhere(world: World, target: ResourceId) -> bool:
    """Whether the name is somebody's: of another account of ours, or of the rest of the world."""
    ours = (each for each in of_type(world, ACCOUNT) if each["name"].lower() == target.name.lower())
    return any(each["id"].lower() != target.key for each in ours) or taken(
        world, ACCOUNT, target.name
    )


def _check(world: World, target: ResourceId, body: Json) -> None:
    if not re.fullmatch(r"[a-z0-9]{3,24}", target.name):
        raise invalid_name(target.name)
    check_shape(body, ACCOUNT_SHAPE, "StorageAccountCreateParameters")
    if target.key not in world.resources and _elsewhere(world, target):
        raise Refused(
            409,
            "StorageAccountAlreadyTaken",
            f"The storage account named {target.name} is already taken.",
        )
    before = world.resources.get(target.key)
    encryption = (body.get("properties") or {}).get("encryption") or {}
    wanted = encryption.get("requireInfrastructureEncryption")
    if before is not None and wanted is not None:
        had = (before["properties"].get("encryption") or {}).get("requireInfrastructureEncryption")
        if bool(had) != wanted:
            raise Refused(
                409,
                "StorageAccountPropertyCannotBeUpdated",
                "The property 'requireInfrastructureEncryption' cannot be updated.",
            )


def _put(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    if before is None and world.faults.has(QUOTA):
        raise Refused(
            409,
            "MaxStorageAccountsCountPerSubscriptionExceeded",
            f"Subscription {target.subscription} already contains 250 storage accounts in location "
            f"{body['location']} and the maximum allowed is 250.",
        )
    for name in ("key1", "key2"):
        world.keys.setdefault((target.key, name), b64encode(secrets.token_bytes(64)).decode())
    hosts = {
        kind: f"https://{target.name}.{kind}.core.windows.net/"
        for kind in ("blob", "file", "queue", "table", "dfs")
    }
    properties = {
        "accessTier": "Hot",
        "allowSharedKeyAccess": True,
        "minimumTlsVersion": "TLS1_0",
        "supportsHttpsTrafficOnly": True,
        "allowBlobPublicAccess": False,
        "networkAcls": {"bypass": "AzureServices", "defaultAction": "Allow"},
        **(body.get("properties") or {}),
        "provisioningState": "Succeeded",
        "creationTime": before["properties"]["creationTime"] if before else now(),
        "primaryEndpoints": hosts,
        "primaryLocation": body["location"],
        "statusOfPrimary": "available",
        "privateEndpointConnections": [],
    }
    tier = body["sku"]["name"].partition("_")[0]
    return {**body, "sku": {"name": body["sku"]["name"], "tier": tier}, "properties": properties}


def _delete(world: World, target: ResourceId, resource: Json) -> None:
    # An account made again under the name has other keys, and other blobs.
    for name in ("key1", "key2"):
        world.keys.pop((target.key, name), None)


def _check_blobs(world: World, target: ResourceId, body: Json) -> None:
    check_shape(body, BLOBS_SHAPE, "BlobServiceProperties")
    if target.name != "default":
        raise Refused(
            400, "InvalidResourceName", f"The blob service is named default, not {target.name}."
        )


def _check_container(world: World, target: ResourceId, body: Json) -> None:
    check_shape(body, CONTAINER_SHAPE, "BlobContainer")
    if not re.fullmatch(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", target.name):
        raise Refused(
            400,
            "ContainerOperationFailure",
            "The specifed resource name contains invalid characters.",
        )


def add(parts: Parts) -> None:
    """The types and the accounts' own operations."""
    routes, types = parts.routes, parts.types
    parts.world.faults.declare(QUOTA, "no further storage account in the region")
    types.add(ResourceType(ACCOUNT, VERSIONS, SPEC, check=_check, put=_put, delete=_delete))
    types.add(ResourceType(BLOBS, VERSIONS, SPEC, check=_check_blobs))
    types.add(ResourceType(CONTAINER, VERSIONS, SPEC, check=_check_container))

    @routes.add(
        ARM,
        "POST",
        f"/subscriptions/{{s}}/resourceGroups/{{g}}/providers/{ACCOUNT}/{{name}}/listKeys",
        source=SPEC,
        versions=VERSIONS,
    )
    def keys(world: World, request: Request, s: str, g: str, name: str) -> Json:
        found = resources.find(world, request.path.rpartition("/")[0])
        return {
            "keys": [
                {
                    "keyName": each,
                    "value": world.keys[found["id"].lower(), each],
                    "permissions": "FULL",
                    "creationTime": found["properties"]["creationTime"],
                }
                for each in ("key1", "key2")
            ]
        }

    @routes.add(
        ARM,
        "POST",
        "/subscriptions/{s}/providers/Microsoft.Storage/checkNameAvailability",
        source=SPEC,
        versions=VERSIONS,
    )
    def check_name(world: World, request: Request, s: str) -> Json:
        body = request.mapping()
        check_shape(body, {"name": TEXT, "type": {ACCOUNT}}, "StorageAccountCheckNameAvailability")
        if not re.fullmatch(r"[a-z0-9]{3,24}", body["name"]):
            return {
                "nameAvailable": False,
                "reason": "AccountNameInvalid",
                "message": invalid_name(body["name"]).message,
            }
        target = ResourceId.parse(f"/subscriptions/{s}/providers/{ACCOUNT}/{body['name']}")
        if _elsewhere(world, target):
            return {
                "nameAvailable": False,
                "reason": "AlreadyExists",
                "message": f"The storage account named {body['name']} is already taken.",
            }
        return {"nameAvailable": True}
