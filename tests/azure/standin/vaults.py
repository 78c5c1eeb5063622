"""Key vaults as ARM has them: soft delete, recovery and purge. What is in them is another module's.

Source: REST spec Microsoft.KeyVault keyvault.json (2023-07-01); azure-cli
keyvault/tests/latest/recordings/test_keyvault_mgmt.yaml and test_keyvault_recover.yaml
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.azure.standin import operations, resources
from tests.azure.standin.arm import region
from tests.azure.standin.messages import Answer, Json, Refused, Request
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
from tests.azure.standin.world import SUBSCRIPTION, TENANT, World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

VAULT = "Microsoft.KeyVault/vaults"
VERSIONS = (
    "2019-09-01",
    "2021-10-01",
    "2022-07-01",
    "2023-02-01",
    "2023-07-01",
    "2024-11-01",
    "2025-05-01",
    "2026-02-01",
)
SPEC = "REST spec: Microsoft.KeyVault keyvault.json"
SHAPE = {
    **TRACKED,
    "systemData": SERVER,
    "properties": {
        "tenantId": TEXT,
        "sku": {"family": {"A"}, "name": {"standard", "premium"}},
        "createMode": Optional({"default", "recover"}),
        "accessPolicies": Optional(
            [
                {
                    "tenantId": TEXT,
                    "objectId": TEXT,
                    "applicationId": Optional(TEXT),
                    "permissions": ANY,
                }
            ]
        ),
        "enableRbacAuthorization": Optional(FLAG),
        "enableSoftDelete": Optional(FLAG),
        "softDeleteRetentionInDays": Optional(NUMBER),
        "enablePurgeProtection": Optional(FLAG),
        "enabledForDeployment": Optional(FLAG),
        "enabledForDiskEncryption": Optional(FLAG),
        "enabledForTemplateDeployment": Optional(FLAG),
        "publicNetworkAccess": Optional({"Enabled", "Disabled"}),
        "networkAcls": Optional(
            {
                "defaultAction": Optional({"Allow", "Deny"}),
                "bypass": Optional({"AzureServices", "None"}),
                "ipRules": Optional([ANY]),
                "virtualNetworkRules": Optional([ANY]),
            }
        ),
        "vaultUri": SERVER,
        "provisioningState": SERVER,
        "hsmPoolResourceId": SERVER,
        "privateEndpointConnections": SERVER,
    },
}
LOCATIONS = (
    "/subscriptions/{s}/providers/Microsoft.KeyVault/locations/{region}/deletedVaults/{name}"
)


def when_purged(world: World, call: Callable[[str], None]) -> None:
    """Call with the vault's id in lower case when what it holds is gone for good."""
    world.rooms.setdefault("vaults purged", []).append(call)


def deleted(world: World, name: str) -> Json | None:
    """The soft-deleted vault of that name as GET shows it."""
    return world.deleted.get(f"vault/{name.lower()}")


def _bad(message: str) -> Refused:
    return Refused(400, "BadRequest", message)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"(?!.*--)[a-zA-Z][a-zA-Z0-9-]{1,22}[a-zA-Z0-9]", name):
        raise Refused(
            400,
            "VaultNameNotValid",
            f"The vault name '{name}' is invalid. A vault's name must be between 3-24 alphanumeric "
            "characters. The name must begin with a letter, end with a letter or digit, and not contain "
            "consecutive hyphens. Follow this link for more information: "
            "https://go.microsoft.com/fwlink/?linkid=2147742",
        )


def _others(world: World, target: ResourceId) -> bool:
    ours = (each for each in of_type(world, VAULT) if each["name"].lower() == target.name.lower())
    return any(each["id"].lower() != target.key for each in ours) or taken(
        world, VAULT, target.name
    )


def _check(world: World, target: ResourceId, body: Json) -> None:
    _check_name(target.name)
    check_shape(body, SHAPE, "VaultCreateOrUpdateParameters")
    asked = body["properties"]
    before = world.resources.get(target.key)
    gone = deleted(world, target.name)
    if asked["tenantId"].lower() != TENANT:
        raise _bad(
            f"Invalid tenant: '{asked['tenantId']}'. It must be the subscription's '{TENANT}'."
        )
    if before is None:
        _check_new(world, target, body, gone)
        before = gone and gone["_vault"]
    had = before["properties"] if before else {}
    if asked.get("enablePurgeProtection") is False:
        raise _bad(
            'The property "enablePurgeProtection" cannot be set to false. Enabling the purge protection '
            "for a vault is an irreversible action."
        )
    if asked.get("enableSoftDelete") is False:
        raise _bad(
            'The property "enableSoftDelete" can be set to false only for creating new vault. Enabling '
            "the 'soft delete' functionality for a vault is an irreversible action."
        )
    days = asked.get("softDeleteRetentionInDays")
    if days is not None and not 7 <= days <= 90:
        raise _bad(
            'The property "softDeleteRetentionInDays" must be between 7 and 90 (both inclusive).'
        )
    if had and days is not None and days != had["softDeleteRetentionInDays"]:
        raise _bad(
            'The property "softDeleteRetentionInDays" has been set already and it can\'t be modified.'
        )
    if (
        not asked.get("enableRbacAuthorization")
        and asked.get("accessPolicies") is None
        and asked.get("createMode") != "recover"
    ):
        raise _bad("The parameter accessPolicies is not specified.")


def _check_new(world: World, target: ResourceId, body: Json, gone: Json | None) -> None:
    recover = body["properties"].get("createMode") == "recover"
    if _others(world, target):
        raise Refused(
            409,
            "VaultAlreadyExists",
            f"The vault name '{target.name}' is already in use. Vault names are globally unique so it "
            "is possible that the name is already taken. If you are sure that the vault name was not "
            "taken then it is possible that a vault with the same name was recently deleted but not "
            "purged after being placed in a recoverable state. If the vault is in a recoverable state "
            "then the vault will need to be purged before reusing the name. For more information about "
            "VaultAlreadyExists, soft delete and purging a vault follow this link "
            "https://go.microsoft.com/fwlink/?linkid=2147740.",
        )
    if gone is not None and not recover:
        raise Refused(
            409,
            "ConflictError",
            "A vault with the same name already exists in deleted state. You need to either recover or "
            "purge existing key vault. Follow this link "
            "https://go.microsoft.com/fwlink/?linkid=2149745 for more information on soft delete.",
        )
    if recover and (gone is None or gone["properties"]["vaultId"].lower() != target.key):
        raise Refused(
            404,
            "DeletedVaultNotFound",
            f"The specified deleted vault '{target.name}' does not exist.",
        )
    if recover and gone is not None and region(body["location"]) != gone["properties"]["location"]:
        raise Refused(
            404,
            "DeletedVaultNotFound",
            f"The specified deleted vault '{target.name}' does not exist in '{body['location']}'.",
        )


def _put(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    asked = {name: value for name, value in body["properties"].items() if value is not None}
    gone = world.deleted.pop(f"vault/{target.name.lower()}", None) if before is None else None
    if gone is not None:
        before = gone["_vault"]
    had = before["properties"] if before else {}
    asked.pop("createMode", None)
    properties = {
        "accessPolicies": had.get("accessPolicies", []),
        "enabledForDeployment": False,
        "enableSoftDelete": True,
        "enableRbacAuthorization": False,
        "softDeleteRetentionInDays": had.get("softDeleteRetentionInDays", 90),
        "publicNetworkAccess": "Enabled",
        **({"enablePurgeProtection": True} if had.get("enablePurgeProtection") else {}),
        # What is recovered is as it was.
        **(had if gone is not None else {}),
        **asked,
        "vaultUri": f"https://{target.name.lower()}.vault.azure.net/",
        "provisioningState": "Succeeded",
    }
    return {**body, "properties": properties}


def _delete(world: World, target: ResourceId, resource: Json) -> None:
    """Soft delete: the vault can be recovered until its retention ends."""
    properties = resource["properties"]
    begin = datetime.now(UTC)
    end = begin + timedelta(days=properties["softDeleteRetentionInDays"])
    place = region(resource["location"])
    world.deleted[f"vault/{target.name.lower()}"] = {
        "id": f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault/locations/{place}/"
        f"deletedVaults/{target.name}",
        "name": target.name,
        "type": "Microsoft.KeyVault/deletedVaults",
        "properties": {
            "vaultId": resource["id"],
            "location": place,
            "tags": resource.get("tags") or {},
            "deletionDate": begin.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "scheduledPurgeDate": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
            **({"purgeProtectionEnabled": True} if properties.get("enablePurgeProtection") else {}),
        },
        "_vault": copy.deepcopy(resource),
    }


def leave_deleted(world: World, vault: str, place: str, tags: Mapping[str, str]) -> None:
    """Let there be a soft-deleted vault that had the id `vault`."""
    target = ResourceId.parse(vault)
    _delete(
        world,
        target,
        {
            "id": vault,
            "name": target.name,
            "type": VAULT,
            "location": place,
            "tags": dict(tags),
            "properties": {"softDeleteRetentionInDays": 90},
        },
    )


def _shown(gone: Json) -> Json:
    return {name: value for name, value in gone.items() if not name.startswith("_")}


def _find_deleted(world: World, place: str, name: str) -> Json:
    found = deleted(world, name)
    if found is None or found["properties"]["location"] != region(place):
        raise Refused(
            404, "DeletedVaultNotFound", f"The specified deleted vault '{name}' does not exist."
        )
    return found


def _purge(world: World, name: str) -> Json:
    gone = world.deleted.pop(f"vault/{name.lower()}", None)
    if gone is not None:
        for call in world.rooms.get("vaults purged", []):
            call(str(gone["properties"]["vaultId"]).lower())
    return {}


def add(parts: Parts) -> None:
    """The type, and the routes of deleted vaults."""
    routes = parts.routes
    parts.types.add(ResourceType(VAULT, VERSIONS, SPEC, check=_check, put=_put, delete=_delete))

    @routes.add(
        ARM,
        "GET",
        "/subscriptions/{s}/providers/Microsoft.KeyVault/deletedVaults",
        source=SPEC,
        versions=VERSIONS,
    )
    def listed(world: World, request: Request, s: str) -> Json:
        return {
            "value": [
                _shown(gone) for key, gone in sorted(world.deleted.items()) if key[:6] == "vault/"
            ]
        }

    @routes.add(
        ARM,
        "GET",
        "/subscriptions/{s}/providers/Microsoft.KeyVault/deletedManagedHSMs",
        source=SPEC,
        versions=VERSIONS,
    )
    def no_modules(world: World, request: Request, s: str) -> Json:
        # az asks for these too when it lists deleted vaults.
        return {"value": []}

    @routes.add(ARM, "GET", LOCATIONS, source=SPEC, versions=VERSIONS)
    def one(world: World, request: Request, s: str, region: str, name: str) -> Json:
        return _shown(_find_deleted(world, region, name))

    @routes.add(ARM, "POST", f"{LOCATIONS}/purge", source=SPEC, versions=VERSIONS)
    def purge(world: World, request: Request, s: str, region: str, name: str) -> Answer:
        gone = _find_deleted(world, region, name)
        if gone["properties"].get("purgeProtectionEnabled"):
            raise Refused(405, "MethodNotAllowed", "Operation 'DeletedVaultPurge' is not allowed.")
        operation = operations.begin(world, 0.5, lambda: _purge(world, name))
        return Answer(202, None, operations.location_headers(operation, request.api_version))

    @routes.add(
        ARM,
        "POST",
        "/subscriptions/{s}/providers/Microsoft.KeyVault/checkNameAvailability",
        source=SPEC,
        versions=VERSIONS,
    )
    def check_name(world: World, request: Request, s: str) -> Json:
        body = request.mapping()
        check_shape(body, {"name": TEXT, "type": {VAULT}}, "VaultCheckNameAvailabilityParameters")
        try:
            _check_name(body["name"])
        except Refused as refused:
            return {
                "nameAvailable": False,
                "reason": "AccountNameInvalid",
                "message": refused.message,
            }
        target = ResourceId.parse(f"/subscriptions/{s}/providers/{VAULT}/{body['name']}")
        if _others(world, target):
            return {
                "nameAvailable": False,
                "reason": "AlreadyExists",
                "message": f"The vault name '{body['name']}' is already in use.",
            }
        if deleted(world, body["name"]) is not None:
            return {
                "nameAvailable": False,
                "reason": "AlreadyExists",
                "message": "A vault with the same name already exists in deleted state. You need to "
                "either recover or purge existing key vault.",
            }
        return {"nameAvailable": True}

    @routes.add(
        ARM,
        "PUT",
        f"/subscriptions/{{s}}/resourceGroups/{{g}}/providers/{VAULT}/{{name}}/accessPolicies/{{kind}}",
        source=SPEC,
        versions=VERSIONS,
    )
    def policies(world: World, request: Request, s: str, g: str, name: str, kind: str) -> Json:
        vault = resources.find(world, request.path.rpartition("/accessPolicies/")[0])
        given = request.mapping()["properties"]["accessPolicies"]
        ids = {each["objectId"] for each in given}
        kept = [e for e in vault["properties"]["accessPolicies"] if e["objectId"] not in ids]
        if kind.lower() not in ("add", "replace", "remove"):
            raise _bad(f"The access policy operation '{kind}' is unknown.")
        if kind.lower() == "replace":
            kept = []
        vault["properties"]["accessPolicies"] = kept + ([] if kind.lower() == "remove" else given)
        return {"id": request.path, "properties": {"accessPolicies": given}}
