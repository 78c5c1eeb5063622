"""A Kubernetes cluster as somebody else made it, attached to the workspace."""

from __future__ import annotations

from tests.azure.standin import resources
from tests.azure.standin.access import grant
from tests.azure.standin.aks import clusters, make_cluster
from tests.azure.standin.standin import StandIn
from tests.azure.standin.world import SUBSCRIPTION

GROUP = "clusters"


def attach_cluster(standin: StandIn, workspace_id: str, registry_id: str, name: str) -> str:
    """Make a cluster in a group of its own and attach it as `name`; its id.

    Its nodes may pull from the registry, as `az aks update --attach-acr` arranges it.
    """
    world = standin.world
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    with world.lock:
        region = resources.find(world, workspace_id)["location"]
        world.resources.setdefault(
            group.lower(),
            {
                "id": group,
                "name": GROUP,
                "type": "Microsoft.Resources/resourceGroups",
                "location": region,
                "properties": {"provisioningState": "Succeeded"},
            },
        )
        cluster = make_cluster(world, group, "kubernetes", region)
        grant(world, clusters(world)[cluster.lower()].kubelet.object_id, "AcrPull", registry_id)
        body = {
            "location": region,
            "properties": {"computeType": "AKS", "resourceId": cluster, "properties": {}},
        }
        resources.put(world, standin.types, f"{workspace_id}/computes/{name}", body)
    return cluster
