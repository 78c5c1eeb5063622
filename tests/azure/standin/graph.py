"""Microsoft Graph, as far as az looks people up for role assignments.

Source: azure-cli role/tests/latest/recordings/test_role_assignment_e2e.yaml
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.azure.standin.directory import Principal, check_token, directory
from tests.azure.standin.messages import Json, Refused, Request
from tests.azure.standin.world import World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

GRAPH = "graph.microsoft.com"
AUDIENCES = ("https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000")
RECORDED = "azure-cli role/tests/latest/recordings/test_role_assignment_e2e.yaml"


def _shown(principal: Principal) -> Json:
    kind = "user" if principal.kind == "User" else "servicePrincipal"
    given: Json = {
        "@odata.type": f"#microsoft.graph.{kind}",
        "id": principal.object_id,
        "displayName": principal.name,
    }
    if kind == "user":
        given |= {"userPrincipalName": principal.name, "mail": principal.name}
    else:
        given |= {
            "appId": principal.app_id,
            "servicePrincipalNames": [principal.app_id],
            "servicePrincipalType": "ManagedIdentity" if principal.resource else "Application",
        }
    return given


def add(parts: Parts) -> None:
    """Routes of graph.microsoft.com."""
    routes = parts.routes
    routes.gates[GRAPH] = lambda world, request: _gate(world, request)

    @routes.add(GRAPH, "POST", "/v1.0/directoryObjects/getByIds", source=RECORDED)
    def by_ids(world: World, request: Request) -> Json:
        wanted = request.mapping()["ids"]
        people = directory(world).principals
        return {"value": [_shown(people[each]) for each in wanted if each in people]}

    @routes.add(GRAPH, "GET", "/v1.0/servicePrincipals", source=RECORDED)
    def applications(world: World, request: Request) -> Json:
        text = request.query.get("$filter", "")
        wanted = re.search(r"(?:appId eq|c:c eq|c eq)\s+'([^']+)'", text)
        if wanted is None:
            raise Refused(400, "Request_UnsupportedQuery", f"Unsupported filter: {text}")
        found = directory(world).application(wanted[1])
        return {"value": [_shown(found)] if found else []}

    @routes.add(GRAPH, "GET", "/v1.0/servicePrincipals/{name}", source=RECORDED)
    def one(world: World, request: Request, name: str) -> Json:
        found = directory(world).principals.get(name)
        if found is None or found.kind == "User":
            raise Refused(
                404,
                "Request_ResourceNotFound",
                f"Resource '{name}' does not exist or one of its queried reference-property objects are "
                "not present.",
            )
        return _shown(found)

    @routes.add(GRAPH, "GET", "/v1.0/users", source=RECORDED)
    def users(world: World, request: Request) -> Json:
        text = request.query.get("$filter", "")
        people = directory(world).principals.values()
        return {"value": [_shown(p) for p in people if p.kind == "User" and f"'{p.name}'" in text]}

    @routes.add(GRAPH, "GET", "/v1.0/me", source=RECORDED)
    def me(world: World, request: Request) -> Json:
        return _shown(check_token(world, request, AUDIENCES))


def _gate(world: World, request: Request) -> None:
    check_token(world, request, AUDIENCES)
