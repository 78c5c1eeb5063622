"""Azure Policy: resource types that an assignment of "Not allowed resource types" denies.

Sources: users' reports of what Azure answers, for a template Azure-Samples/azure-search-openai-demo#120
and OfficeDev/microsoft-teams-apps-company-communicator#221, for a single request (403)
microsoft/AzureTRE#2890; the definition is a built-in one of Azure's.
"""

from __future__ import annotations

import json

from tests.azure.standin.messages import Json, Refused
from tests.azure.standin.resources import ResourceId
from tests.azure.standin.world import SUBSCRIPTION, World

CODE = "RequestDisallowedByPolicy"
NAME = "Not allowed resource types"
ASSIGNMENT = (
    f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/policyAssignments/"
    "35ee869489f24894b32aed2f"
)
DEFINITION = (
    "/providers/Microsoft.Authorization/policyDefinitions/6c112d4e-5bc7-47ae-a041-ea2d9dccd749"
)


def denied(world: World) -> set[str]:
    """The types that are denied, in lower case; a test changes them."""
    found: set[str] = world.rooms.setdefault("denied types", set())
    return found


def check(world: World, target: ResourceId) -> None:
    """Refused if the policy denies a write of such a resource."""
    if target.type.lower() not in denied(world):
        return
    identifiers = [
        {
            "policyAssignment": {"name": NAME, "id": ASSIGNMENT},
            "policyDefinition": {"name": NAME, "id": DEFINITION},
        }
    ]
    info: Json = {
        "policyAssignmentDisplayName": NAME,
        "policyAssignmentId": ASSIGNMENT,
        "policyAssignmentScope": f"/subscriptions/{SUBSCRIPTION}",
        "policyDefinitionDisplayName": NAME,
        "policyDefinitionEffect": "deny",
        "policyDefinitionId": DEFINITION,
    }
    raise Refused(
        403,
        CODE,
        f"Resource '{target.name}' was disallowed by policy. Policy identifiers: "
        f"'{json.dumps(identifiers, separators=(',', ':'))}'.",
        more={
            "target": target.name,
            "additionalInfo": [{"type": "PolicyViolation", "info": info}],
        },
    )
