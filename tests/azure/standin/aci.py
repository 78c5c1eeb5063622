"""Azure Container Instances: container groups whose containers really run.

A group's host, <label>.<region>.azurecontainer.io, is a machine of the stand-in: what its containers
listen on is reached there, TLS included if a container speaks it.
"""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

from tests.azure.standin import containers, generic, operations
from tests.azure.standin.aci_group import Group, View, decodes
from tests.azure.standin.aci_shapes import (
    MOST_CPU,
    MOST_MEMORY,
    TYPE,
    check,
    check_update,
    requested,
    without_secrets,
)
from tests.azure.standin.aci_shapes import containers as containers_of
from tests.azure.standin.arm import check_region
from tests.azure.standin.containers import PullFailed
from tests.azure.standin.directory import Principal, directory
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.resources import ResourceId, ResourceType, find
from tests.azure.standin.routes import ARM
from tests.azure.standin.world import REGIONS, TENANT, World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

VERSIONS = (
    "2019-12-01",
    "2021-03-01",
    "2021-07-01",
    "2021-09-01",
    "2021-10-01",
    "2022-09-01",
    "2023-05-01",
    "2024-05-01-preview",
    "2024-11-01-preview",
    "2025-09-01",
)
SPEC = "Azure/azure-rest-api-specs containerinstance (containerInstance.json)"
RECORDED = "azure-cli recordings container/test_container_create_with_acr, test_container_create"
PATH = "/subscriptions/{subscription}/resourceGroups/{group}/providers/" + TYPE + "/{name}"
LOCATION = "/subscriptions/{subscription}/providers/Microsoft.ContainerInstance/locations/{region}"
#: Cores of a subscription in a region. Source: learn.microsoft.com, "Quotas and limits of ACI".
CORES = 10


def groups(world: World) -> dict[str, Group]:
    """Those at work, by id in lower case."""
    found: dict[str, Group] = world.rooms.setdefault("aci", {})
    return found


def _identities(world: World, body: Json) -> dict[str, Principal]:
    """The group's user-assigned identities by id; Refused if one is not there."""
    given = (body.get("identity") or {}).get("userAssignedIdentities") or {}
    found: dict[str, Principal] = {}
    for name in given:
        principal = next(
            (p for p in directory(world).principals.values() if p.resource == name.lower()), None
        )
        if principal is None or name.lower() not in world.resources:
            raise Refused(
                400,
                "FailedIdentityOperation",
                f"Identity operation for resource of type '{TYPE}' failed with error 'Failed to perform "
                "resource identity operation. Status: 'BadRequest'. Response: "
                f'\'{{"error":{{"code":"BadRequest","message":"Resource \'{name}\' was not found."}}}}\'\'.',
            )
        found[name.lower()] = principal
    return found


def _pullers(world: World, name: str, body: Json) -> dict[str, Principal]:
    """Who pulls from each registry; Refused if that identity is not one of the group's."""
    mine = _identities(world, body)
    found: dict[str, Principal] = {}
    for credential in body["properties"].get("imageRegistryCredentials") or []:
        identity = credential.get("identity")
        if identity is None:
            continue
        if identity.lower() not in mine:
            raise Refused(
                400,
                "InvalidImageRegistryCredentialIdentity",
                f"The identity '{identity}' of the image registry credential for "
                f"'{credential['server']}' is not assigned to container group '{name}'.",
            )
        found[credential["server"].lower()] = mine[identity.lower()]
    return found


def _check(world: World, target: ResourceId, body: Json) -> None:
    """What can be said before anything else of a template is there."""
    check(target.name, body)
    body["location"] = check_region(body["location"], TYPE)
    for volume in body["properties"].get("volumes") or []:
        for key, text in (volume.get("secret") or {}).items():
            if not decodes(text):
                raise Refused(
                    400,
                    "InvalidSecretVolume",
                    f"The secret '{key}' of volume '{volume['name']}' must be encoded in base64.",
                )


def _check_place(world: World, target: ResourceId, body: Json) -> None:
    """What the service refuses when it looks for a place for the group."""
    before = groups(world).get(target.key)
    if before is not None:
        check_update(target.name, body, before.body)
    _check_label(world, target, body)
    _check_quota(world, target, body)
    pullers = _pullers(world, target.name, body)
    for _, properties in containers_of(body):
        _check_image(world, target.name, properties["image"], pullers)


def _check_label(world: World, target: ResourceId, body: Json) -> None:
    host = host_of(body)
    for other in groups(world).values():
        if host and other.host == host and other.id.lower() != target.key:
            label = body["properties"]["ipAddress"]["dnsNameLabel"]
            raise Refused(
                400,
                "DnsNameLabelNotAvailable",
                f"The DNS name label '{label}' in container group '{target.name}' not available. Try "
                "using a different label.",
            )


def _check_quota(world: World, target: ResourceId, body: Json) -> None:
    used = sum(
        requested(other.body)[0]
        for other in groups(world).values()
        if other.body["location"] == body["location"] and other.id.lower() != target.key
    )
    limit = used if world.faults.has("aci quota exceeded") else CORES
    wanted = requested(body)[0]
    if used + wanted > limit:
        raise Refused(
            400,
            "ContainerGroupQuotaReached",
            f"Resource type '{TYPE}' container group quota 'StandardCores' exceeded in region "
            f"'{body['location']}'. Limit: '{limit:g}', Usage: '{used:g}' Requested: '{wanted:g}'.",
        )


def _check_image(world: World, group: str, image: str, pullers: dict[str, Principal]) -> None:
    """The service looks for an image before it places a group. Source: users' reports of the message."""
    try:
        containers.look_up(world, image, pullers.get(image.partition("/")[0].lower()))
    except PullFailed as error:
        raise Refused(
            400,
            "InaccessibleImage",
            f"The image '{image}' in container group '{group}' is not accessible. Please check the image "
            "and registry credential.",
        ) from error


def host_of(body: Json) -> str:
    """The group's host, "" if it asks for none."""
    label = (body["properties"].get("ipAddress") or {}).get("dnsNameLabel")
    return f"{label}.{body['location']}.azurecontainer.io" if label else ""


def _put(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    if not world.docker:
        raise Refused(500, "StandInLacksDocker", "no Docker engine: no containers here")
    _check_place(world, target, body)
    old = groups(world).get(target.key)
    if old is not None:
        old.ended.set()
        if old.host != host_of(body):
            world.machines.pop(old.host, None)
    asked = copy.deepcopy(body)
    group = groups(world)[target.key] = Group(
        world,
        target.text,
        asked,
        host_of(asked),
        _pullers(world, target.name, asked),
        operations.begin_open(world),
        {name: View(properties) for name, properties in containers_of(asked)},
        before=old,
    )
    generic.follow(world, target.text, group.operation)
    group.begin()
    properties = without_secrets(body)
    if properties.get("ipAddress"):
        number = hashlib.sha256(target.key.encode()).digest()
        properties["ipAddress"]["ip"] = f"20.{number[0]}.{number[1]}.{number[2]}"
        if group.host:
            properties["ipAddress"]["fqdn"] = group.host
    made = {**body, "tags": body.get("tags") or {}, "properties": properties}
    if body.get("identity"):
        made["identity"] = _identity(world, target, body)
    return made


def _identity(world: World, target: ResourceId, body: Json) -> Json:
    shown: dict[str, Any] = {"type": body["identity"]["type"], "tenantId": TENANT}
    if "SystemAssigned" in shown["type"]:
        principal = directory(world).add_identity(target.name, target.text)
        shown["principalId"] = principal.object_id
    mine = _identities(world, body)
    if mine:
        shown["userAssignedIdentities"] = {
            name: {
                "principalId": mine[name.lower()].object_id,
                "clientId": mine[name.lower()].app_id,
            }
            for name in body["identity"]["userAssignedIdentities"]
        }
    return shown


def _show(world: World, resource: Json) -> Json:
    group = groups(world).get(str(resource["id"]).lower())
    if group is None:
        return resource
    properties = resource["properties"]
    properties["provisioningState"] = group.provisioning
    properties["instanceView"] = {"events": list(group.events), "state": group.state}
    if group.provisioning != "Pending":
        for container in properties["containers"]:
            view = group.views[container["name"]]
            container["properties"]["instanceView"] = view.shown()
    return resource


def _delete(world: World, target: ResourceId, resource: Json) -> None:
    group = groups(world).pop(target.key, None)
    if group is not None:
        group.leave()
        directory(world).remove_identity(target.text)


def _group(world: World, request: Request, name: str) -> Group:
    """The group a path is about; Refused (404) if there is none."""
    head, found, rest = request.path.partition("/containerGroups/")
    find(world, head + found + rest.partition("/")[0])
    return groups(world)[(head + found + rest.partition("/")[0]).lower()]


def _end_all(world: World) -> None:
    for group in groups(world).values():
        group.end()


def add(parts: Parts) -> None:
    """The resource type, its own operations, and the troubles there can be."""
    routes, types, world = parts.routes, parts.types, parts.world
    kind = ResourceType(
        TYPE, VERSIONS, f"{SPEC}; {RECORDED}", check=_check, put=_put, delete=_delete, show=_show
    )
    types.add(kind)
    for region in REGIONS:
        world.domains[f"{region}.azurecontainer.io"] = lambda host: host in world.machines
    world.closing.append(lambda: _end_all(world))
    world.faults.declare(
        "aci has no capacity", "the region has no room for a group (InsufficientCapacity)"
    )
    world.faults.declare("aci quota exceeded", "the subscription has no cores left in the region")
    world.faults.declare("aci cannot pull", "an image is there, and its pull fails all the same")
    world.faults.declare(
        "aci container crashes", "containers are killed as soon as they have started"
    )

    @routes.add(ARM, "PUT", PATH, source=RECORDED, versions=VERSIONS)
    def put(world: World, request: Request, subscription: str, group: str, name: str) -> Answer:
        before = world.resources.get(request.path.lower())
        made = generic.put(world, types, request.path, request.mapping(), request.api_version)
        operation = groups(world)[request.path.lower()].operation
        headers = operations.status_headers(operation, request.api_version)
        shown = generic.shown(world, types, made)
        return Answer(201 if before is None else 200, shown, headers)

    @routes.add(
        ARM, "DELETE", PATH, source=f"{SPEC} (ContainerGroups_Delete)", versions=VERSIONS, slow=True
    )
    def delete(world: World, request: Request, subscription: str, group: str, name: str) -> Answer:
        with world.lock:
            resource = world.resources.get(request.path.lower())
        if resource is None:
            return Answer(204)
        at_work = groups(world).get(request.path.lower())
        if at_work is not None:
            # Containers take their time to stop, and others may be served meanwhile.
            at_work.end()
        with world.lock:
            shown = generic.shown(world, types, resource)
            generic.delete(world, types, request.path)
        return Answer(200, shown)

    @routes.add(
        ARM,
        "POST",
        PATH + "/stop",
        source=f"{SPEC} (ContainerGroups_Stop)",
        versions=VERSIONS,
        slow=True,
    )
    def stop(world: World, request: Request, subscription: str, group: str, name: str) -> Answer:
        _group(world, request, name).end()
        return Answer(204)

    def start_again(world: World, request: Request, name: str) -> Answer:
        found = _group(world, request, name)
        found.end()
        found.operation = operations.begin_open(world)
        found.begin()
        return Answer(202, None, operations.location_headers(found.operation, request.api_version))

    @routes.add(
        ARM,
        "POST",
        PATH + "/start",
        source=f"{SPEC} (ContainerGroups_Start)",
        versions=VERSIONS,
        slow=True,
    )
    def start(world: World, request: Request, subscription: str, group: str, name: str) -> Answer:
        return start_again(world, request, name)

    @routes.add(
        ARM,
        "POST",
        PATH + "/restart",
        source=f"{SPEC} (ContainerGroups_Restart)",
        versions=VERSIONS,
        slow=True,
    )
    def restart(world: World, request: Request, subscription: str, group: str, name: str) -> Answer:
        return start_again(world, request, name)

    @routes.add(
        ARM,
        "GET",
        PATH + "/containers/{container}/logs",
        source=f"{SPEC} (Containers_ListLogs)",
        versions=VERSIONS,
        slow=True,
    )
    def logs(
        world: World, request: Request, subscription: str, group: str, name: str, container: str
    ) -> Json:
        found = _group(world, request, name)
        if container not in found.views:
            raise Refused(
                404,
                "ContainerNotFound",
                f"The container '{container}' in container group '{name}' was not found.",
            )
        tail = request.query.get("tail")
        return {"content": found.logs(container, int(tail) if tail else None)}

    @routes.add(
        ARM, "GET", LOCATION + "/usages", source=f"{SPEC} (Location_ListUsage)", versions=VERSIONS
    )
    def usages(world: World, request: Request, subscription: str, region: str) -> Json:
        here = [group for group in groups(world).values() if group.body["location"] == region]
        cores = sum(requested(group.body)[0] for group in here)
        amounts = (("ContainerGroups", 100, len(here)), ("StandardCores", CORES, cores))
        return {
            "value": [
                {
                    "unit": "Count",
                    "currentValue": used,
                    "limit": limit,
                    "name": {"value": name, "localizedValue": name},
                }
                for name, limit, used in amounts
            ]
        }

    @routes.add(
        ARM,
        "GET",
        LOCATION + "/capabilities",
        source=f"{SPEC} (Location_ListCapabilities)",
        versions=VERSIONS,
    )
    def capabilities(world: World, request: Request, subscription: str, region: str) -> Json:
        check_region(region, TYPE)
        limits = {"maxMemoryInGB": MOST_MEMORY, "maxCpu": MOST_CPU, "maxGpuCount": 0}
        entry = {
            "resourceType": "containerGroups",
            "osType": "Linux",
            "location": region,
            "ipAddressType": "Public",
            "gpu": "None",
            "capabilities": limits,
        }
        return {"value": [entry]}
