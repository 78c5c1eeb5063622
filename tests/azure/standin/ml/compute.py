"""Compute of a workspace: clusters that grow by demand, and attached Kubernetes clusters.

Made and removed by ARM, read by the workspace's own address (`/rp/workspaces/...`). A cluster has as
many nodes as runs need, between its two bounds; a run that finds none waits.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

from tests.azure.standin import identities, resources
from tests.azure.standin.messages import Json, Refused, Request
from tests.azure.standin.ml.sizes import NO_QUOTA, QUOTA, SIZES, VERSIONS
from tests.azure.standin.ml.workspace import HOST, TYPE, WS, Plane, Workspace, stamp
from tests.azure.standin.resources import ResourceId, ResourceType, of_type
from tests.azure.standin.routes import ARM
from tests.azure.standin.shapes import ANY, SERVER, TAGS, TEXT, Optional, check_shape
from tests.azure.standin.world import World

COMPUTES = f"{TYPE}/computes"
SOURCE = "azureml-core core/compute/*.py; REST specification machineLearningServices.json, computes"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,30}[A-Za-z0-9]")
DURATION = re.compile(r"P(?:\d+D)?(?:T(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?)?")
#: Seconds a node needs before its first run.
NODE_SECONDS = 0.3


@dataclass
class Nodes:
    """What a cluster's nodes do: the runs they have, and until when it is resizing."""

    runs: set[str] = field(default_factory=set)
    until: float = 0.0


def _nodes(world: World, key: str) -> Nodes:
    kept: dict[str, Nodes] = world.rooms.setdefault("ml.nodes", {})
    return kept.setdefault(key.lower(), Nodes())


def find(workspace: Workspace, name: str) -> Json | None:
    """A compute's resource, None if there is none of that name."""
    return workspace.world.resources.get(f"{workspace.id}/computes/{name}".lower())


def take(workspace: Workspace, name: str, run_id: str) -> bool:
    """Whether a node of the cluster can have the run now."""
    world = workspace.world
    with world.lock:
        cluster = find(workspace, name)
        if cluster is None or cluster.get("_no_quota"):
            return False
        nodes = _nodes(world, str(cluster["id"]))
        most = int(_inner(cluster)["scaleSettings"]["maxNodeCount"])
        if len(nodes.runs) >= most:
            return False
        nodes.runs.add(run_id)
        return True


def give_back(workspace: Workspace, name: str, run_id: str) -> None:
    """The run's node is free again."""
    with workspace.world.lock:
        _nodes(workspace.world, f"{workspace.id}/computes/{name}").runs.discard(run_id)


def _inner(compute: Json) -> Json:
    inner: Json = compute["properties"].get("properties") or {}
    return inner


def _bad(message: str, code: str = "BadRequest") -> Refused:
    return Refused(400, code, message)


def _check(world: World, target: ResourceId, body: Json) -> None:
    check_shape(
        body,
        {
            "location": Optional(TEXT),
            "tags": TAGS,
            "identity": Optional(identities.BLOCK),
            "sku": Optional(ANY),
            "id": SERVER,
            "name": SERVER,
            "type": SERVER,
            "properties": {
                "computeType": {"AmlCompute", "AKS"},
                "computeLocation": Optional(TEXT),
                "description": Optional(TEXT),
                "resourceId": Optional(TEXT),
                "disableLocalAuth": Optional(ANY),
                "properties": Optional(ANY),
            },
        },
        COMPUTES,
    )
    if not NAME.fullmatch(target.name):
        raise _bad(
            "Compute name is invalid. It can include letters, digits and dashes. It must start with a "
            "letter, end with a letter or digit, and be between 2 and 32 characters in length.",
            "InvalidComputeName",
        )
    if body["properties"]["computeType"] == "AKS":
        _check_attached(world, body["properties"])
    else:
        _check_cluster(world, body["properties"].get("properties"))


def _check_attached(world: World, properties: Json) -> None:
    resource = properties.get("resourceId")
    if not resource:
        raise _bad(
            "The stand-in attaches Kubernetes clusters and makes none: resourceId is missing."
        )
    if str(resource).lower() not in world.resources:
        raise Refused(404, "ResourceNotFound", f"The cluster {resource} was not found.")


def _check_cluster(world: World, inner: Any) -> None:
    check_shape(
        inner,
        {
            "vmSize": TEXT,
            "vmPriority": Optional({"Dedicated", "LowPriority"}),
            "scaleSettings": ANY,
            "subnet": Optional(ANY),
            "osType": Optional({"Linux", "Windows"}),
            "remoteLoginPortPublicAccess": Optional({"Enabled", "Disabled", "NotSpecified"}),
            "enableNodePublicIp": Optional(ANY),
            "isolatedNetwork": Optional(ANY),
            "userAccountCredentials": Optional(ANY),
        },
        f"{COMPUTES}.properties.properties",
    )
    if inner["vmSize"].upper() not in SIZES:
        raise _bad(
            f"STANDARD VM size {inner['vmSize']} is not supported in this region.", "InvalidVmSize"
        )
    scale = inner["scaleSettings"]
    check_shape(
        scale,
        {
            "minNodeCount": Optional(ANY),
            "maxNodeCount": ANY,
            "nodeIdleTimeBeforeScaleDown": Optional(TEXT),
        },
        f"{COMPUTES}.properties.properties.scaleSettings",
    )
    least, most = scale.get("minNodeCount") or 0, scale["maxNodeCount"]
    if not (isinstance(least, int) and isinstance(most, int) and 0 <= least <= most and most > 0):
        raise _bad(
            f"minNodeCount {least} and maxNodeCount {most} do not fit.", "InvalidScaleSettings"
        )
    idle = scale.get("nodeIdleTimeBeforeScaleDown")
    if idle is not None and not DURATION.fullmatch(idle):
        raise _bad(f"nodeIdleTimeBeforeScaleDown '{idle}' is no duration.", "InvalidScaleSettings")


def _put(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    properties = body["properties"]
    parent = resources.find(world, str(target.parent))
    if before is not None and before["properties"]["computeType"] != properties["computeType"]:
        raise Refused(409, "Conflict", f"The compute {target.name} exists with another type.")
    made = before["properties"]["createdOn"] if before else stamp()
    common = {
        "computeType": properties["computeType"],
        "computeLocation": properties.get("computeLocation") or parent["location"],
        "description": properties.get("description"),
        "resourceId": properties.get("resourceId"),
        "createdOn": made,
        "modifiedOn": stamp(),
        "provisioningState": "Succeeded",
        "provisioningErrors": None,
        "isAttachedCompute": properties["computeType"] == "AKS",
        "disableLocalAuth": False,
    }
    extra: Json = {}
    if properties["computeType"] == "AKS":
        inner = _attached(world, properties)
    else:
        inner, extra = _cluster(world, target, properties["properties"], common, before)
    shown = {"sku": body["sku"]} if body.get("sku") else {}
    identity = identities.given(world, target, body.get("identity"))
    if identity:
        shown["identity"] = identity
    return {
        "location": body.get("location") or parent["location"],
        "tags": body.get("tags") or {},
        **shown,
        **extra,
        "properties": {**common, "properties": inner},
    }


def _cluster(
    world: World, target: ResourceId, asked: Json, common: Json, before: Json | None
) -> tuple[Json, Json]:
    size = asked["vmSize"].upper()
    family, cores, _ = SIZES[size]
    if before is not None and _inner(before)["vmSize"].upper() != size:
        raise _bad(
            f"The specified VM size {asked['vmSize']} differs from that of the existing compute "
            f"{target.name}: it cannot be updated.",
            "CannotUpdateVmSize",
        )
    scale = {
        "minNodeCount": asked["scaleSettings"].get("minNodeCount") or 0,
        "maxNodeCount": asked["scaleSettings"]["maxNodeCount"],
        "nodeIdleTimeBeforeScaleDown": asked["scaleSettings"].get("nodeIdleTimeBeforeScaleDown")
        or "PT120S",
    }
    none = world.faults.has(NO_QUOTA)
    allowed = 0 if none else QUOTA
    wanted = scale["minNodeCount"] * cores
    if wanted > allowed:
        message = (
            f"The specified subscription has a {family} vCPU quota of {allowed} and is less than the "
            f"requested cluster min nodes, which need {wanted} vCPUs. Please request a quota increase."
        )
        error = {"code": "ClusterMinNodesExceedCoreQuota", "message": message, "details": []}
        common["provisioningState"] = "Failed"
        common["provisioningErrors"] = [{"error": error}]
    _nodes(world, target.text).until = time.monotonic() + NODE_SECONDS
    inner = {
        "vmSize": size,
        "vmPriority": asked.get("vmPriority") or "Dedicated",
        "osType": asked.get("osType") or "Linux",
        "subnet": asked.get("subnet"),
        "remoteLoginPortPublicAccess": asked.get("remoteLoginPortPublicAccess") or "NotSpecified",
        "enableNodePublicIp": asked.get("enableNodePublicIp", True),
        "scaleSettings": scale,
    }
    return inner, {"_no_quota": none}


def _attached(world: World, properties: Json) -> Json:
    cluster = world.resources[str(properties["resourceId"]).lower()]["properties"]
    pool: Json = next(iter(cluster.get("agentPoolProfiles") or []), {})
    asked = properties.get("properties") or {}
    return {
        "clusterFqdn": cluster.get("fqdn"),
        "agentCount": pool.get("count"),
        "agentVmSize": pool.get("vmSize"),
        "clusterPurpose": asked.get("clusterPurpose") or "FastProd",
        "systemServices": [],
        "sslConfiguration": asked.get("sslConfiguration"),
        "aksNetworkingConfiguration": None,
        "loadBalancerType": asked.get("loadBalancerType") or "PublicIp",
        "loadBalancerSubnet": asked.get("loadBalancerSubnet"),
    }


def show(world: World, resource: Json) -> Json:
    """The compute with what its nodes do now."""
    given = {name: value for name, value in resource.items() if not name.startswith("_")}
    properties = given["properties"] = dict(given["properties"])
    if properties["computeType"] != "AmlCompute":
        return given
    inner = dict(properties["properties"])
    nodes = _nodes(world, str(resource["id"]))
    resizing = time.monotonic() < nodes.until
    least = int(inner["scaleSettings"]["minNodeCount"])
    count = 0 if resource.get("_no_quota") else max(least, len(nodes.runs))
    running = len(nodes.runs)
    present = 0 if resizing else count
    quota = {
        "error": {
            "code": "ClusterCoreQuotaReached",
            "message": "Operation results in exceeding quota limits of Core. "
            "Maximum allowed: 0, Current in use: 0.",
            "details": [],
        }
    }
    inner |= {
        "allocationState": "Resizing" if resizing and least else "Steady",
        "allocationStateTransitionTime": properties["modifiedOn"],
        "errors": [quota] if resource.get("_no_quota") else None,
        "currentNodeCount": present,
        "targetNodeCount": count,
        "nodeStateCounts": {
            "preparingNodeCount": count - present,
            "runningNodeCount": min(running, present),
            "idleNodeCount": max(0, present - running),
            "unusableNodeCount": 0,
            "leavingNodeCount": 0,
            "preemptedNodeCount": 0,
        },
    }
    properties["properties"] = inner
    return given


def add(plane: Plane) -> None:
    parts = plane.parts
    parts.types.add(
        ResourceType(COMPUTES, VERSIONS, SOURCE, check=_check, put=_put, show=show, pending=0.05)
    )

    @parts.routes.add(HOST, "GET", f"/rp/workspaces{WS}/computes", source=SOURCE, versions=VERSIONS)
    def listed(world: World, request: Request, region: str, s: str, g: str, w: str) -> Json:
        workspace = _enter(plane, request, s, g, w)
        found = of_type(world, COMPUTES, f"{workspace.id}/")
        return {"value": [show(world, compute) for compute in found]}

    @parts.routes.add(
        HOST, "GET", f"/rp/workspaces{WS}/computes/{{name}}", source=SOURCE, versions=VERSIONS
    )
    def one(world: World, request: Request, region: str, s: str, g: str, w: str, name: str) -> Json:
        workspace = _enter(plane, request, s, g, w)
        compute = find(workspace, name)
        if compute is None:
            raise Refused(404, "ComputeNotFound", f"Compute with name {name} was not found.")
        return show(world, compute)

    @parts.routes.add(
        ARM, "POST", f"{WS}/computes/{{name}}/listNodes", source=SOURCE, versions=VERSIONS
    )
    def nodes(world: World, request: Request, s: str, g: str, w: str, name: str) -> Json:
        resources.find(
            world, f"/subscriptions/{s}/resourceGroups/{g}/providers/{TYPE}/{w}/computes/{name}"
        )
        return {"nodes": []}


def _enter(plane: Plane, request: Request, s: str, g: str, w: str) -> Workspace:
    arm = f"/subscriptions/{s}/resourceGroups/{g}/providers/{TYPE}/{w}"
    plane.admit(request, arm, "rp")
    return plane.workspace(arm)
