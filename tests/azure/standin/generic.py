"""Resources of any known type: PUT, GET, PATCH, DELETE and lists, with what ARM itself checks first.

Templates make their resources through `put` here too, so that they are checked alike.
"""

from __future__ import annotations

import copy
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.azure.standin import operations, policy, resources
from tests.azure.standin.arm import (
    GROUP,
    GROUPS,
    check_locks,
    check_region,
    deprovisioning,
    find_group,
    region,
)
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.providers import check_registered
from tests.azure.standin.resources import ResourceId, ResourceType, ResourceTypes, of_type
from tests.azure.standin.routes import ARM, unknown_version
from tests.azure.standin.world import SUBSCRIPTION, Operation, World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

FULL = "no capacity in the region"
RPC = "Azure/azure-resource-manager-rpc resource-api-reference.md"


@dataclass
class Room:
    """By resource key: what was last asked for, and until when its PUT is under way."""

    asked: dict[str, Json] = field(default_factory=dict)
    until: dict[str, float] = field(default_factory=dict)


def _room(world: World) -> Room:
    found = world.rooms.setdefault("generic", Room())
    assert isinstance(found, Room)
    return found


def check(
    world: World, types: ResourceTypes, resource_id: str, body: Json, version: str
) -> ResourceType:
    """All that ARM and the type refuse; changes nothing."""
    target = ResourceId.parse(resource_id)
    kind = types.find(target.type, version)
    check_registered(world, target.type.partition("/")[0])
    if target.group:
        group = find_group(world, target.group)
        if group["properties"]["provisioningState"] == "Deleting":
            raise deprovisioning(target.group)
    parent = target.parent
    if parent is not None and parent.lower() not in world.resources:
        raise Refused(
            404,
            "ParentResourceNotFound",
            "Can not perform requested operation on nested resource. Parent resource "
            f"'{'/'.join(target.names[:-1])}' not found.",
        )
    before = world.resources.get(target.key)
    if "location" in body and body["location"] != "global":
        where = check_region(body["location"], target.type)
        if before is not None and region(str(before.get("location", where))) != where:
            raise Refused(
                409,
                "InvalidResourceLocation",
                f"The resource '{target.name}' already exists in location '{before['location']}' in "
                f"resource group '{target.group}'. A resource with the same name cannot be created in "
                f"location '{where}'. Please select a new resource name.",
            )
    policy.check(world, target)
    kind.check(world, target, copy.deepcopy(body))
    return kind


def put(world: World, types: ResourceTypes, resource_id: str, body: Json, version: str) -> Json:
    """Make or change a resource; Refused with what ARM or the type says."""
    kind = check(world, types, resource_id, body, version)
    key = resource_id.lower()
    if key not in world.resources and "location" in body and world.faults.has(FULL):
        target = ResourceId.parse(resource_id)
        raise Refused(
            409,
            "SkuNotAvailable",
            f"The requested tier for resource '{resource_id}' is currently not available in location "
            f"'{body['location']}' for subscription '{target.subscription}'. Please try another tier or "
            "deploy to a different location.",
        )
    if "location" in body:
        body = {**body, "location": region(body["location"])}
    asked = copy.deepcopy(body)
    made = resources.put(world, types, resource_id, body)
    room = _room(world)
    room.asked[key] = asked
    if kind.pending:
        room.until[key] = time.monotonic() + kind.pending
    return made


def shown(world: World, types: ResourceTypes, resource: Json) -> Json:
    """A resource as GET answers it now."""
    key = str(resource["id"]).lower()
    given = types.find(str(resource["type"])).show(world, copy.deepcopy(resource))
    if time.monotonic() < _room(world).until.get(key, 0):
        given["properties"]["provisioningState"] = "Creating"
    return given


def asked(world: World, resource_id: str) -> Json:
    """The body of the last PUT, {} if there was none."""
    return _room(world).asked.get(resource_id.lower(), {})


def follow(world: World, resource_id: str, operation: Operation) -> None:
    """Say what a resource's PUT goes on with; whoever made it waits for that."""
    world.rooms.setdefault("followed", {})[resource_id.lower()] = operation


def followed(world: World, resource_id: str) -> Operation | None:
    """What the resource's last PUT goes on with, if it does."""
    found = world.rooms.get("followed", {}).get(resource_id.lower())
    return found if isinstance(found, Operation) else None


def busy(world: World, resource_id: str) -> float:
    """Seconds until the resource's PUT is done, 0 if it is."""
    return max(0.0, _room(world).until.get(resource_id.lower(), 0) - time.monotonic())


def delete(world: World, types: ResourceTypes, resource_id: str) -> bool:
    """Remove a resource; whether it was there."""
    check_locks(world, resource_id)
    room = _room(world)
    room.asked.pop(resource_id.lower(), None)
    room.until.pop(resource_id.lower(), None)
    return resources.delete(world, types, resource_id)


def _gone(world: World, types: ResourceTypes, resource_id: str) -> Json:
    delete(world, types, resource_id)
    return {}


def merged(before: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396)."""
    if not isinstance(before, dict) or not isinstance(patch, dict):
        return patch
    given = dict(before)
    for name, value in patch.items():
        if value is None:
            given.pop(name, None)
        else:
            given[name] = merged(given.get(name), value)
    return given


def listed(resource: Json) -> Json:
    """A resource as `/resources` lists it: without its properties."""
    names = (
        "id",
        "name",
        "type",
        "kind",
        "location",
        "tags",
        "sku",
        "identity",
        "managedBy",
        "plan",
    )
    return {name: resource[name] for name in names if resource.get(name) is not None}


def _filtered(found: list[Json], text: str) -> list[Json]:
    """What `$filter` leaves: resourceType, name, resourceGroup, tagName and tagValue, all with eq."""
    for part in filter(None, re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE)):
        match = re.fullmatch(r"(\w+)\s+eq\s+'([^']*)'", part.strip(), re.IGNORECASE)
        if match is None:
            raise Refused(400, "InvalidFilterInQueryString", f"Invalid $filter '{text}' specified.")
        name, value = match[1].lower(), match[2].lower()
        if name == "resourcetype":
            found = [each for each in found if str(each["type"]).lower() == value]
        elif name == "name":
            found = [each for each in found if str(each["name"]).lower() == value]
        elif name == "resourcegroup":
            found = [each for each in found if f"/resourcegroups/{value}/" in each["id"].lower()]
        elif name == "tagname":
            found = [e for e in found if value in {t.lower() for t in e.get("tags") or {}}]
        elif name == "tagvalue":
            found = [
                e for e in found if value in {t.lower() for t in (e.get("tags") or {}).values()}
            ]
        else:
            raise Refused(400, "InvalidFilterInQueryString", f"Invalid $filter '{text}' specified.")
    return found


def all_below(world: World, prefix: str) -> list[Json]:
    """The tracked resources whose ids begin so, as `/resources` has them."""
    return [
        resource
        for key, resource in sorted(world.resources.items())
        if key.startswith(prefix.lower() + "/")
        and resource["type"] != GROUP
        and not str(resource["type"]).startswith(
            ("Microsoft.Authorization/", "Microsoft.Resources/")
        )
        and "location" in resource
    ]


def add(parts: Parts) -> None:
    """The catch-all of ARM; must come after every other module's routes."""
    routes, types = parts.routes, parts.types
    parts.world.faults.declare(
        FULL, "a new resource is refused: the region has no room for its tier"
    )

    def resource_list(world: World, request: Request, s: str, g: str = "") -> Json:
        prefix = f"/subscriptions/{SUBSCRIPTION}"
        if g:
            prefix = str(find_group(world, g)["id"])
        found = _filtered(all_below(world, prefix), request.query.get("$filter", ""))
        return {"value": [listed(each) for each in found]}

    source = "azure-cli resource/tests/latest/recordings/test_resource_scenario.yaml"
    for path in ("/subscriptions/{s}/resources", "/subscriptions/{s}/resourceGroups/{g}/resources"):
        routes.add(ARM, "GET", path, source=source, versions=GROUPS)(resource_list)

    def dispatch(world: World, request: Request, **names: str) -> Answer:
        path = request.path.rstrip("/")
        if not request.api_version:
            raise unknown_version(path, "", ())
        parts_of = path.rpartition("/providers/")[2].split("/")
        if len(parts_of) % 2 == 0:
            return _list(world, request, path)
        return _one(world, request, path)

    def _list(world: World, request: Request, path: str) -> Answer:
        if request.method != "GET":
            raise Refused(405, "MethodNotAllowed", f"{request.method} {path} is not supported.")
        target = ResourceId.parse(path + "/-")
        kind = types.find(target.type, request.api_version)
        if target.group:
            find_group(world, target.group)
        under = target.parent or target.scope
        found = [shown(world, types, each) for each in of_type(world, kind.name, under + "/")]
        return Answer(200, {"value": found})

    def _one(world: World, request: Request, path: str) -> Answer:
        target = ResourceId.parse(path)
        kind = types.find(target.type, request.api_version)
        before = world.resources.get(target.key)
        if request.method == "HEAD":
            return Answer(404 if before is None else 204)
        if request.method == "GET":
            if before is None and target.group:
                find_group(world, target.group)
            return Answer(200, shown(world, types, resources.find(world, path)))
        if request.method == "DELETE":
            if before is None:
                return Answer(204)
            check_locks(world, path)
            if not kind.pending:
                delete(world, types, path)
                return Answer(200)
            operation = operations.begin(world, kind.pending, lambda: _gone(world, types, path))
            headers = {
                **operations.location_headers(operation, request.api_version),
                **operations.status_headers(operation, request.api_version),
            }
            return Answer(202, None, headers)
        body = request.mapping()
        if request.method == "PATCH":
            resources.find(world, path)
            body = merged(_room(world).asked.get(target.key, {}), body)
        made = put(world, types, path, body, request.api_version)
        answer = shown(world, types, made)
        if not kind.pending:
            return Answer(201 if before is None else 200, answer)
        operation = operations.begin(world, kind.pending, dict)
        headers = dict(operations.status_headers(operation, request.api_version))
        return Answer(201 if before is None else 200, answer, headers)

    for path in (
        "/subscriptions/{s}/resourceGroups/{g}/providers/{rest...}",
        "/subscriptions/{s}/providers/{rest...}",
    ):
        routes.add(ARM, "GET PUT PATCH DELETE HEAD", path, source=RPC)(dispatch)
