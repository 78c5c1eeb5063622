"""Who may do what: role definitions, role assignments and the check before every call.

The roles themselves are in roles.py.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tests.azure.standin.directory import Principal, check_token, directory
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.resources import ResourceId, ResourceType, of_type, put
from tests.azure.standin.roles import ROLES, Role, role
from tests.azure.standin.routes import ARM
from tests.azure.standin.shapes import TEXT, Optional, check_shape
from tests.azure.standin.world import SUBSCRIPTION, TENANT, World, new_id, now

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

ASSIGNMENT = "Microsoft.Authorization/roleAssignments"
VERSIONS = (
    "2015-07-01",
    "2018-01-01-preview",
    "2020-04-01-preview",
    "2020-10-01-preview",
    "2022-04-01",
)
#: Whoever began an operation may ask how it goes.
OPERATIONS = {"operationresults", "operationstatuses", "operationstatus"}
DEFINITIONS = (*VERSIONS, "2022-05-01-preview")
RECORDED = "azure-cli role/tests/latest/recordings/test_role_assignment_e2e.yaml"


def grant(world: World, principal: str, name: str, scope: str) -> str:
    """Assign a role from outside, for tests; returns the assignment's id."""
    made = f"{scope}/providers/{ASSIGNMENT}/{new_id()}"
    properties = {
        "roleDefinitionId": f"/subscriptions/{SUBSCRIPTION}{role(name).path}",
        "principalId": principal,
        "principalType": directory(world).principals[principal].kind,
        "scope": scope,
    }
    world.resources[made.lower()] = {
        "id": made,
        "name": made.rpartition("/")[2],
        "type": ASSIGNMENT,
        "properties": properties,
    }
    return made


def only(
    world: World, principal: str, name: str, scope: str = f"/subscriptions/{SUBSCRIPTION}"
) -> None:
    """Take all roles from a principal and give it this one: `only(world, APP_OBJECT, "Contributor")`."""
    for assignment in list(of_type(world, ASSIGNMENT)):
        if assignment["properties"]["principalId"] == principal:
            del world.resources[assignment["id"].lower()]
    grant(world, principal, name, scope)


def _covers(scope: str, wanted: str) -> bool:
    scope, wanted = scope.lower().rstrip("/"), wanted.lower().rstrip("/")
    return wanted == scope or wanted.startswith(scope + "/")


def roles(world: World, principal: str, scope: str) -> Iterator[Role]:
    """The roles a principal has on a scope, inherited ones too."""
    for assignment in of_type(world, ASSIGNMENT):
        has = assignment["properties"]
        if has["principalId"] == principal and _covers(has["scope"], scope):
            yield role(has["roleDefinitionId"])


def has_role(world: World, principal: str, name: str, scope: str) -> bool:
    """Whether a principal has the role (by name) on the scope or above it."""
    return any(each.name == name for each in roles(world, principal, scope))


def _hit(action: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def allowed(world: World, principal: str, action: str, scope: str, *, data: bool = False) -> bool:
    """Whether a role lets the principal do `action` on `scope`; `data` asks for a data action."""
    for each in roles(world, principal, scope):
        if data:
            if _hit(action, each.data_actions):
                return True
        elif _hit(action, each.actions) and not _hit(action, each.not_actions):
            return True
    return False


def action_of(method: str, path: str) -> tuple[str, str] | None:
    """The action an ARM call is and its scope; None where none is needed."""
    verb = {"GET": "read", "HEAD": "read", "DELETE": "delete", "PUT": "write", "PATCH": "write"}
    ends = verb.get(method, "action")
    parts = path.strip("/").split("/")
    if (
        len(parts) < 2
        or parts[0].lower() != "subscriptions"
        or OPERATIONS & set(path.lower().split("/"))
    ):
        return None
    subscription = "/".join(["", *parts[:2]])
    scope, _, rest = path.rpartition("/providers/")
    if not rest or not scope:
        if len(parts) == 2:
            return "Microsoft.Resources/subscriptions/read", subscription
        kind = {"resourcegroups": "resourceGroups"}.get(parts[2].lower(), parts[2])
        extra = f"/{parts[4]}" if len(parts) > 4 else ""
        return f"Microsoft.Resources/subscriptions/{kind}{extra}/{ends}", path
    names = rest.split("/")
    if len(names) == 1 or names[1].lower() in ("register", "locations"):
        if len(names) == 2:
            return f"{names[0]}/register/action", subscription
        if method == "POST":
            # "/locations/westeurope/deletedVaults/name/purge" and the like.
            return "/".join([names[0], *names[1::2], "action"]), subscription
        return "Microsoft.Resources/subscriptions/providers/read", subscription
    types, odd = names[1::2], len(names) % 2 == 0
    if method == "POST" and odd:
        # Listing secrets and the like is an action of the resource before it.
        return f"{'/'.join([names[0], *types])}/action", path.rpartition("/")[0]
    if odd:
        return f"{'/'.join([names[0], *types])}/read", scope
    return f"{'/'.join([names[0], *types])}/{ends}", path


def refused(principal: Principal, action: str, scope: str) -> Refused:
    """ARM's refusal. Source: RECORDED and public reports of AuthorizationFailed."""
    who = principal.name if principal.kind == "User" else principal.app_id
    return Refused(
        403,
        "AuthorizationFailed",
        f"The client '{who}' with object id '{principal.object_id}' does not have authorization to "
        f"perform action '{action}' over scope '{scope}' or the scope is invalid. If access was "
        "recently granted, please refresh your credentials.",
    )


def gate(world: World, request: Request) -> None:
    """Before each call of ARM: whose token it is, that the subscription is there, and the roles."""
    if request.path.lower().startswith("/metadata/"):
        return
    principal = check_token(world, request)
    found = re.match(r"/subscriptions/([^/]+)", request.path, re.IGNORECASE)
    if found and found[1].lower() != SUBSCRIPTION:
        raise Refused(
            404, "SubscriptionNotFound", f"The subscription '{found[1]}' could not be found."
        )
    wanted = action_of(request.method, request.path)
    if wanted is not None and not allowed(world, principal.object_id, *wanted):
        raise refused(principal, *wanted)


def caller(world: World, request: Request) -> Principal:
    """Who asks; the gate has let them in."""
    return directory(world).principals[str(request.claims["oid"])]


def _check_assignment(world: World, target: ResourceId, body: Json) -> None:
    check_shape(
        body,
        {
            "properties": {
                "roleDefinitionId": TEXT,
                "principalId": TEXT,
                "principalType": Optional(
                    {"User", "Group", "ServicePrincipal", "ForeignGroup", "Device"}
                ),
                "description": Optional(TEXT),
                "scope": Optional(TEXT),
            }
        },
        ASSIGNMENT,
    )
    try:
        uuid.UUID(target.name)
    except ValueError:
        raise Refused(
            400,
            "InvalidRoleAssignmentId",
            f"The role assignment ID '{target.name}' is not valid. The role assignment ID must be a GUID.",
        ) from None
    asked = body["properties"]
    try:
        role(asked["roleDefinitionId"])
    except KeyError:
        wanted = asked["roleDefinitionId"].rpartition("/")[2].replace("-", "")
        raise Refused(
            404,
            "RoleDefinitionDoesNotExist",
            f"The specified role definition with ID '{wanted}' does not exist.",
        ) from None
    known = directory(world).principals.get(asked["principalId"])
    late = "principalType" not in asked and world.faults.has("directory is late")
    if known is None or late:
        raise Refused(
            400,
            "PrincipalNotFound",
            f"Principal {asked['principalId'].replace('-', '')} does not exist in the directory "
            f"{TENANT}. Check that you have the correct principal ID. If you are creating this "
            "principal and then immediately assigning a role, this error might be related to a "
            "replication delay. In this case, set the role assignment principalType property to a value, "
            "such as ServicePrincipal, User, or Group.  See https://aka.ms/docs-principaltype",
        )
    if asked.get("principalType", known.kind) != known.kind:
        raise Refused(
            400,
            "UnmatchedPrincipalType",
            f"The PrincipalId '{asked['principalId'].replace('-', '')}' has type '{known.kind}' , which "
            f"is different from specified PrinciaplType '{asked['principalType']}'.",
        )
    for other in of_type(world, ASSIGNMENT):
        has = other["properties"]
        same = all(
            has[name].lower() == value.lower()
            for name, value in (
                ("principalId", asked["principalId"]),
                ("scope", target.scope),
            )
        )
        same = same and role(has["roleDefinitionId"]) == role(asked["roleDefinitionId"])
        if other["id"].lower() == target.key and not same:
            raise Refused(
                400,
                "RoleAssignmentUpdateNotPermitted",
                "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
            )
        if same and other["id"].lower() != target.key:
            raise Refused(
                409,
                "RoleAssignmentExists",
                "The role assignment already exists. The ID of the existing role assignment is "
                f"{other['name'].replace('-', '')}.",
            )


def _put_assignment(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    asked = body["properties"]
    who = directory(world).principals[asked["principalId"]]
    created = before["properties"]["createdOn"] if before else now()
    return {
        "properties": {
            **asked,
            "roleDefinitionId": f"/subscriptions/{SUBSCRIPTION}{role(asked['roleDefinitionId']).path}",
            "principalType": who.kind,
            "scope": target.scope,
            "condition": None,
            "conditionVersion": None,
            "createdOn": created,
            "updatedOn": now(),
            "delegatedManagedIdentityResourceId": None,
        }
    }


def definition(each: Role) -> Json:
    """A role definition as GET shows it."""
    return {
        "id": f"/subscriptions/{SUBSCRIPTION}{each.path}",
        "name": each.id,
        "type": "Microsoft.Authorization/roleDefinitions",
        "properties": {
            "roleName": each.name,
            "type": "BuiltInRole",
            "description": each.name,
            "assignableScopes": ["/"],
            "permissions": [
                {
                    "actions": list(each.actions),
                    "notActions": list(each.not_actions),
                    "dataActions": list(each.data_actions),
                    "notDataActions": [],
                }
            ],
        },
    }


def _filtered(world: World, scope: str, text: str) -> list[Json]:
    """Assignments at, above and below a scope, as $filter narrows them."""
    found = []
    who = re.search(r"(?:assignedTo\(|principalId\s+eq\s+)'([^']+)'", text, re.IGNORECASE)
    rest = re.sub(r"atScope\(\)|(?:assignedTo\(|principalId\s+eq\s+)'[^']+'\)?|and|\s", "", text)
    if rest:
        raise Refused(400, "InvalidFilter", f"The filter '{text}' is not supported.")
    for assignment in of_type(world, ASSIGNMENT):
        has = assignment["properties"]
        below = _covers(scope, has["scope"]) and "atscope" not in text.lower()
        if (_covers(has["scope"], scope) or below) and (not who or has["principalId"] == who[1]):
            found.append(assignment)
    return found


def add(parts: Parts) -> None:
    """Routes of Microsoft.Authorization, and the gate before all of ARM."""
    world, routes, types = parts.world, parts.routes, parts.types
    people = directory(world)
    for principal in list(people.principals):
        grant(world, principal, "Owner", f"/subscriptions/{SUBSCRIPTION}")
    routes.gates[ARM] = gate
    world.faults.declare(
        "directory is late", "a new principal is unknown without its principalType"
    )
    types.add(
        ResourceType(
            ASSIGNMENT,
            VERSIONS,
            RECORDED,
            check=_check_assignment,
            put=_put_assignment,
        )
    )
    base = "{scope...}/providers/Microsoft.Authorization"

    @routes.add(ARM, "GET", f"{base}/roleAssignments", source=RECORDED, versions=VERSIONS)
    def assignments(world: World, request: Request, scope: str) -> Json:
        return {"value": _filtered(world, scope, request.query.get("$filter", ""))}

    @routes.add(
        ARM,
        "GET PUT DELETE",
        f"{base}/roleAssignments/{{name}}",
        source=RECORDED,
        versions=VERSIONS,
    )
    def assignment(world: World, request: Request, scope: str, name: str) -> Answer:
        target = f"{scope}/providers/{ASSIGNMENT}/{name}"
        found = world.resources.get(target.lower())
        if request.method == "PUT":
            return Answer(
                201 if found is None else 200, put(world, types, target, request.mapping())
            )
        if request.method == "DELETE":
            world.resources.pop(target.lower(), None)
            return Answer(204) if found is None else Answer(200, found)
        if found is None:
            raise Refused(
                404, "RoleAssignmentNotFound", f"The role assignment '{name}' is not found."
            )
        return Answer(200, found)

    def definitions(world: World, request: Request, scope: str = "") -> Json:
        wanted = re.search(
            r"roleName eq '([^']+)'", request.query.get("$filter", ""), re.IGNORECASE
        )
        return {
            "value": [
                definition(each)
                for each in ROLES
                if not wanted or each.name.lower() == wanted[1].lower()
            ]
        }

    routes.add(
        ARM,
        "GET",
        f"{base}/roleDefinitions",
        source=RECORDED,
        versions=DEFINITIONS,
    )(definitions)
    routes.add(
        ARM,
        "GET",
        "/providers/Microsoft.Authorization/roleDefinitions",
        source=RECORDED,
        versions=DEFINITIONS,
    )(definitions)

    @routes.add(
        ARM,
        "GET",
        f"{base}/roleDefinitions/{{name}}",
        source=RECORDED,
        versions=DEFINITIONS,
    )
    def one_definition(world: World, request: Request, scope: str, name: str) -> Json:
        try:
            return definition(role(name))
        except KeyError:
            raise Refused(
                404,
                "RoleDefinitionDoesNotExist",
                f"The specified role definition with ID '{name.replace('-', '')}' does not exist.",
            ) from None

    @routes.add(
        ARM,
        "GET",
        f"{base}/permissions",
        source="REST spec: Microsoft.Authorization authorization-PermissionsCalls.json",
        versions=("2015-07-01", "2018-07-01", "2022-04-01"),
    )
    def permissions(world: World, request: Request, scope: str) -> Json:
        who = caller(world, request).object_id
        return {
            "value": [
                definition(each)["properties"]["permissions"][0]
                for each in roles(world, who, scope)
            ]
        }
