"""Managed identities: those of their own, and those that other resources have.

Source: REST spec Microsoft.ManagedIdentity ManagedIdentity.json (2023-01-31)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.azure.standin.directory import directory
from tests.azure.standin.messages import Json, Refused
from tests.azure.standin.resources import ResourceId, ResourceType
from tests.azure.standin.shapes import ANY, SERVER, TRACKED, Map, Optional, check_shape
from tests.azure.standin.world import TENANT, World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities"
VERSIONS = ("2018-11-30", "2023-01-31", "2024-11-30", "2025-05-31-preview")
SPEC = "REST spec: Microsoft.ManagedIdentity ManagedIdentity.json"
#: The shape of a resource's `identity`.
BLOCK = {
    "type": {"None", "SystemAssigned", "UserAssigned", "SystemAssigned,UserAssigned"},
    "userAssignedIdentities": Optional(Map(ANY)),
    "principalId": SERVER,
    "tenantId": SERVER,
}


def given(world: World, target: ResourceId, asked: Json | None) -> Json | None:
    """A resource's `identity` as GET shows it; Refused if a named one is not there."""
    if not asked:
        return None
    kind = str(asked["type"]).replace(" ", "")
    shown: Json = {"type": kind}
    if "SystemAssigned" in kind:
        principal = directory(world).add_identity(target.name, target.text)
        shown |= {"principalId": principal.object_id, "tenantId": TENANT}
    if "UserAssigned" in kind:
        shown["userAssignedIdentities"] = {}
        for each in asked.get("userAssignedIdentities") or {}:
            found = world.resources.get(each.lower())
            if found is None:
                raise Refused(
                    400,
                    "FailedIdentityOperation",
                    f"Identity operation for resource '{target.text}' failed with error 'Failed to "
                    f"perform resource identity operation. Status: 'BadRequest'. Response: "
                    f"'The user assigned identity {each} was not found.'.",
                )
            shown["userAssignedIdentities"][each] = {
                "principalId": found["properties"]["principalId"],
                "clientId": found["properties"]["clientId"],
            }
    return shown


def _check(world: World, target: ResourceId, body: Json) -> None:
    check_shape(
        body,
        {
            **TRACKED,
            "properties": Optional(
                {
                    "tenantId": SERVER,
                    "principalId": SERVER,
                    "clientId": SERVER,
                    "provisioningState": SERVER,
                    "isolationScope": SERVER,
                }
            ),
        },
        "Identity",
    )
    if not re.fullmatch(r"[A-Za-z0-9][\w-]{2,127}", target.name):
        raise Refused(
            400,
            "BadRequest",
            f"The name '{target.name}' is not valid for a user assigned identity: 3 to 128 letters, "
            "digits, '-' and '_'.",
        )


def _put(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    principal = directory(world).add_identity(target.name, target.text)
    return {
        **body,
        "properties": {
            "tenantId": TENANT,
            "principalId": principal.object_id,
            "clientId": principal.app_id,
        },
    }


def _delete(world: World, target: ResourceId, resource: Json) -> None:
    directory(world).remove_identity(target.text)


def add(parts: Parts) -> None:
    """The type."""
    parts.types.add(ResourceType(IDENTITY, VERSIONS, SPEC, check=_check, put=_put, delete=_delete))
