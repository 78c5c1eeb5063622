"""Microsoft.ContainerService/managedClusters: what `az aks create` or a template asks for.

Source: REST spec containerservice/resource-manager (ManagedCluster), azure-cli acs/managed_cluster_decorator.py
for what it sends; sizes and what they leave for pods: learn.microsoft.com/azure/aks/node-resource-reservations.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

from tests.azure.standin import identities, resources
from tests.azure.standin.aks.cluster import Cluster
from tests.azure.standin.aks.rollout import Controllers
from tests.azure.standin.arm import check_region
from tests.azure.standin.directory import directory
from tests.azure.standin.messages import Json, Refused
from tests.azure.standin.resources import ResourceId, ResourceType
from tests.azure.standin.shapes import (
    ANY,
    FLAG,
    NUMBER,
    SERVER,
    TEXT,
    TRACKED,
    Map,
    Optional,
    check_shape,
)
from tests.azure.standin.world import World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

TYPE = "Microsoft.ContainerService/managedClusters"
VERSIONS = (
    "2023-08-01",
    "2024-02-01",
    "2024-05-01",
    "2024-09-01",
    "2025-01-01",
    "2025-05-01",
    "2025-10-01",
    "2026-04-01",
    "2026-05-01",
    "2026-06-01",
)
SPEC = "REST spec containerservice/resource-manager (ManagedClusters)"
#: Kubernetes versions the region offers, the default first.
OFFERED = ("1.33", "1.34", "1.32")
#: CPUs and GiB that a node of a size leaves for pods.
SIZES = {
    "standard_ds2_v2": (1.9, 4.5),
    "standard_d2s_v3": (1.9, 5.4),
    "standard_d2s_v5": (1.9, 5.4),
    "standard_ds3_v2": (3.86, 10.9),
    "standard_d4s_v3": (3.86, 12.6),
    "standard_d4s_v5": (3.86, 12.6),
    "standard_b2s": (1.9, 2.2),
}
POOL = {
    "name": TEXT,
    "count": Optional(NUMBER),
    "vmSize": Optional(TEXT),
    "mode": Optional({"System", "User", "Gateway", "Machines"}),
    "osType": Optional({"Linux", "Windows"}),
    "osSKU": Optional(TEXT),
    "osDiskSizeGB": Optional(NUMBER),
    "osDiskType": Optional(TEXT),
    "type": Optional({"VirtualMachineScaleSets", "AvailabilitySet", "VirtualMachines"}),
    "availabilityZones": Optional([TEXT]),
    "enableAutoScaling": Optional(FLAG),
    "minCount": Optional(NUMBER),
    "maxCount": Optional(NUMBER),
    "maxPods": Optional(NUMBER),
    "vnetSubnetID": Optional(TEXT),
    "orchestratorVersion": Optional(TEXT),
    "enableNodePublicIP": Optional(FLAG),
    "enableEncryptionAtHost": Optional(FLAG),
    "enableUltraSSD": Optional(FLAG),
    "enableFIPS": Optional(FLAG),
    "scaleDownMode": Optional(TEXT),
    "upgradeSettings": Optional(ANY),
    "nodeLabels": Optional(Map(TEXT)),
    "nodeTaints": Optional([TEXT]),
    "nodeInitializationTaints": Optional([TEXT]),
    "securityProfile": Optional(ANY),
    "kubeletDiskType": Optional(TEXT),
    "tags": Optional(Map(TEXT)),
    "powerState": SERVER,
    "provisioningState": SERVER,
    "currentOrchestratorVersion": SERVER,
    "nodeImageVersion": SERVER,
    "networkProfile": Optional(ANY),
    "workloadRuntime": Optional(TEXT),
    "spotMaxPrice": Optional(NUMBER),
    "scaleSetPriority": Optional(TEXT),
    "eTag": SERVER,
}
SHAPE = {
    **TRACKED,
    "kind": Optional(TEXT),
    "sku": Optional({"name": {"Base", "Automatic"}, "tier": {"Free", "Standard", "Premium"}}),
    "identity": Optional(identities.BLOCK),
    "extendedLocation": SERVER,
    "systemData": SERVER,
    "properties": {
        "kubernetesVersion": Optional(TEXT),
        "dnsPrefix": Optional(TEXT),
        "fqdnSubdomain": Optional(TEXT),
        "agentPoolProfiles": [POOL],
        "linuxProfile": Optional(ANY),
        "windowsProfile": Optional(ANY),
        "servicePrincipalProfile": Optional({"clientId": TEXT, "secret": Optional(TEXT)}),
        "addonProfiles": Optional(Map(ANY)),
        "podIdentityProfile": SERVER,
        "oidcIssuerProfile": Optional(ANY),
        "nodeResourceGroup": Optional(TEXT),
        "nodeResourceGroupProfile": Optional(ANY),
        "enableRBAC": Optional(FLAG),
        "supportPlan": Optional(TEXT),
        "networkProfile": Optional(ANY),
        "aadProfile": Optional(ANY),
        "autoUpgradeProfile": Optional(ANY),
        "autoScalerProfile": Optional(ANY),
        "apiServerAccessProfile": Optional(ANY),
        "diskEncryptionSetID": Optional(TEXT),
        "identityProfile": Optional(Map(ANY)),
        "disableLocalAccounts": Optional(FLAG),
        "securityProfile": Optional(ANY),
        "storageProfile": Optional(ANY),
        "publicNetworkAccess": Optional(TEXT),
        "workloadAutoScalerProfile": Optional(ANY),
        "azureMonitorProfile": Optional(ANY),
        "nodeProvisioningProfile": Optional(ANY),
        "bootstrapProfile": Optional(ANY),
        "httpProxyConfig": Optional(ANY),
        "ingressProfile": Optional(ANY),
        "serviceMeshProfile": Optional(ANY),
        "upgradeSettings": Optional(ANY),
        "metricsProfile": Optional(ANY),
        "aiToolchainOperatorProfile": Optional(ANY),
        "hostedSystemProfile": Optional(ANY),
        "privateLinkResources": SERVER,
        "powerState": SERVER,
        "provisioningState": SERVER,
        "fqdn": SERVER,
        "privateFQDN": SERVER,
        "maxAgentPools": SERVER,
        "resourceUID": SERVER,
        "currentKubernetesVersion": SERVER,
    },
}


def clusters(world: World) -> dict[str, Cluster]:
    """Those there are, by resource key."""
    found: dict[str, Cluster] = world.rooms.setdefault("clusters", {})
    return found


def _bad(code: str, message: str) -> Refused:
    return Refused(400, code, message)


def _check(world: World, target: ResourceId, body: Json) -> None:
    if not re.fullmatch(r"[A-Za-z0-9]([\w-]{0,61}[A-Za-z0-9])?", target.name):
        raise _bad("InvalidParameter", f"The cluster name '{target.name}' is invalid.")
    check_shape(body, SHAPE, TYPE)
    region = check_region(body["location"], TYPE)
    properties = body["properties"]
    version = properties.get("kubernetesVersion") or OFFERED[0]
    if ".".join(version.split(".")[:2]) not in OFFERED:
        raise _bad(
            "K8sVersionNotSupported",
            f"Managed cluster {target.name} is on version {version} which is not supported in this region. "
            "Please use [az aks get-versions] command to get the supported version list in this region.",
        )
    if not body.get("identity") and not properties.get("servicePrincipalProfile"):
        raise _bad("InvalidParameter", "Neither a service principal nor an identity was given.")
    pools = properties["agentPoolProfiles"]
    if not any((pool.get("mode") or "System") == "System" for pool in pools):
        raise _bad(
            "MustDefineAtLeastOneSystemPool", "Must define at least one system mode agent pool."
        )
    for pool in pools:
        if not re.fullmatch(r"[a-z][a-z0-9]{0,11}", pool["name"]):
            raise _bad("InvalidParameter", f"The agent pool name '{pool['name']}' is invalid.")
        size = str(pool.get("vmSize") or "Standard_DS2_v2")
        if size.lower() not in SIZES:
            raise _bad(
                "VMSizeNotSupported",
                f"The VM size of {size} is not allowed in your subscription in location '{region}'.",
            )
    if world.faults.has("no AKS quota"):
        raise _bad(
            "ErrCode_InsufficientVCPUQuota",
            f"Insufficient regional vcpu quota left for location {region}. left regional vcpu quota 0, "
            "requested quota 6.",
        )


def _put(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    region, given = body["location"], body["properties"]
    cluster = clusters(world).get(target.key)
    node_group = given.get("nodeResourceGroup") or f"MC_{target.group}_{target.name}_{region}"
    pools = [_pool(each) for each in given["agentPoolProfiles"]]
    first = pools[0]
    if cluster is None:
        kubelet_id = (
            f"/subscriptions/{target.subscription}/resourceGroups/{node_group}/providers/"
            f"Microsoft.ManagedIdentity/userAssignedIdentities/{target.name}-agentpool"
        )
        kubelet = directory(world).add_identity(f"{target.name}-agentpool", kubelet_id)
        cluster = Cluster(world, target.text, region, kubelet)
        cluster.close = Controllers(cluster).close
        world.closing.append(cluster.close)
        clusters(world)[target.key] = cluster
    cluster.nodes = sum(pool["count"] for pool in pools)
    cluster.node_cpu, memory = SIZES[first["vmSize"].lower()]
    cluster.node_memory = memory * 2**30
    kept = {k: v for k, v in given.items() if k not in ("agentPoolProfiles", "windowsProfile")}
    version = ".".join((given.get("kubernetesVersion") or OFFERED[0]).split(".")[:2])
    prefix = given.get("dnsPrefix") or target.name
    return {
        "location": region,
        "tags": body.get("tags"),
        "sku": body.get("sku") or {"name": "Base", "tier": "Free"},
        "kind": "Base",
        "identity": identities.given(world, target, body.get("identity")),
        "properties": {
            "enableRBAC": True,
            "disableLocalAccounts": False,
            **kept,
            "kubernetesVersion": version,
            "currentKubernetesVersion": f"{version}.5",
            "dnsPrefix": prefix,
            "fqdn": f"{prefix}-1234abcd.hcp.{region}.azmk8s.io",
            "agentPoolProfiles": pools,
            "nodeResourceGroup": node_group,
            "maxAgentPools": 100,
            "networkProfile": {
                "networkPlugin": "azure",
                "loadBalancerSku": "standard",
                **(given.get("networkProfile") or {}),
            },
            "identityProfile": {
                "kubeletidentity": {
                    "resourceId": cluster.kubelet.resource,
                    "clientId": cluster.kubelet.app_id,
                    "objectId": cluster.kubelet.object_id,
                }
            },
            "powerState": {"code": "Stopped" if cluster.stopped else "Running"},
            "provisioningState": "Succeeded",
        },
    }


def _pool(asked: Json) -> Json:
    return {
        "mode": "System",
        "osType": "Linux",
        "type": "VirtualMachineScaleSets",
        **asked,
        "count": int(asked.get("count") or 1),
        "vmSize": asked.get("vmSize") or "Standard_DS2_v2",
        "provisioningState": "Succeeded",
        "powerState": {"code": "Running"},
        "orchestratorVersion": OFFERED[0],
        "currentOrchestratorVersion": f"{OFFERED[0]}.5",
    }


def _show(world: World, resource: Json) -> Json:
    cluster = clusters(world)[str(resource["id"]).lower()]
    resource["properties"]["powerState"] = {"code": "Stopped" if cluster.stopped else "Running"}
    return resource


def _delete(world: World, target: ResourceId, resource: Json) -> None:
    cluster = clusters(world).pop(target.key, None)
    if cluster is not None:
        cluster.close()
        directory(world).remove_identity(cluster.kubelet.resource)


KIND = ResourceType(
    TYPE, VERSIONS, SPEC, check=_check, put=_put, delete=_delete, show=_show, pending=1.0
)


def make_cluster(
    world: World, group_id: str, name: str, region: str = "westeurope", *, nodes: int = 3
) -> str:
    """A cluster in a group that is there, as somebody made it before; its id.

    Its nodes pull with an identity of their own (`clusters(world)[id].kubelet`): give it AcrPull.
    """
    made = f"{group_id}/providers/{TYPE}/{name}"
    target = ResourceId.parse(made)
    body: Json = {
        "location": region,
        "identity": {"type": "SystemAssigned"},
        "properties": {"agentPoolProfiles": [{"name": "nodepool1", "count": nodes}]},
    }
    _check(world, target, copy.deepcopy(body))
    shown = _put(world, target, body, None)
    world.resources[target.key] = {"id": made, "name": name, "type": TYPE, **shown}
    return made


def attach(parts: Parts, workspace_id: str, name: str, cluster_id: str) -> None:
    """The cluster as a compute of a workspace that is there, as somebody attached it before."""
    properties = {"computeType": "AKS", "resourceId": cluster_id}
    computes = f"{workspace_id}/computes/{name}"
    resources.put(parts.world, parts.types, computes, {"properties": properties})
