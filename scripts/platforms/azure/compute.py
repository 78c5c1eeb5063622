"""The compute cluster that training runs on."""

from __future__ import annotations

from typing import Any

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure.workspace import explained, silenced
from scripts.settings import Settings

#: A node that has had nothing to do for so long is given back.
IDLE_SECONDS = 300


def ensure_cluster(workspace: Any, settings: Settings, identity: str) -> str:
    """The cluster's name: made when missing, scaled as the settings say; UsageError if it differs.

    `identity` is the id of the managed identity that its nodes pull the toolbox image with.
    """
    name = settings.require("AML_COMPUTE_CLUSTER_NAME")
    if settings.AML_CLUSTER_MIN_NODES > settings.AML_CLUSTER_MAX_NODES:
        raise UsageError(
            f"AML_CLUSTER_MIN_NODES={settings.AML_CLUSTER_MIN_NODES} is more than "
            f"AML_CLUSTER_MAX_NODES={settings.AML_CLUSTER_MAX_NODES}",
            "correct one of them in .env",
        )
    with explained(f"cluster {name}"), silenced():
        from azureml.core.compute import ComputeTarget
        from azureml.core.compute_target import ComputeTargetException

        try:
            cluster = ComputeTarget(workspace, name)
        except ComputeTargetException as error:
            if "ComputeTargetNotFound" not in str(error):
                raise
            cluster = None
    if cluster is None:
        _create(workspace, settings, name, identity)
    else:
        _adapt(cluster, settings, name)
    return name


def _create(workspace: Any, settings: Settings, name: str, identity: str) -> None:
    console.step(
        f"making cluster {name}: {settings.AML_CLUSTER_MIN_NODES} to "
        f"{settings.AML_CLUSTER_MAX_NODES} nodes of {settings.AML_COMPUTE_CLUSTER_CPU_SKU}"
    )
    with explained(f"cluster {name}"), silenced():
        from azureml.core.compute import AmlCompute, ComputeTarget

        wanted = AmlCompute.provisioning_configuration(
            vm_size=settings.AML_COMPUTE_CLUSTER_CPU_SKU,
            vm_priority=settings.AML_CLUSTER_PRIORITY,
            min_nodes=settings.AML_CLUSTER_MIN_NODES,
            max_nodes=settings.AML_CLUSTER_MAX_NODES,
            idle_seconds_before_scaledown=IDLE_SECONDS,
            identity_type="UserAssigned",
            identity_id=[identity],
        )
        cluster = ComputeTarget.create(workspace, name, wanted)
        # The nodes are not waited for here: the run is, and it says so.
        cluster.wait_for_completion(show_output=False, min_node_count=0, timeout_in_minutes=20)
    _check_state(cluster, name)


def _adapt(cluster: Any, settings: Settings, name: str) -> None:
    if cluster.type != "AmlCompute":
        raise UsageError(
            f"AML_COMPUTE_CLUSTER_NAME={name} is a {cluster.type}, not a training cluster",
            "choose another name in .env",
        )
    for setting, found in (
        ("AML_COMPUTE_CLUSTER_CPU_SKU", str(cluster.vm_size or "")),
        ("AML_CLUSTER_PRIORITY", str(cluster.vm_priority or "")),
    ):
        wanted = getattr(settings, setting)
        if found.lower() != wanted.lower():
            raise UsageError(
                f"cluster {name} has nodes of {found}, but {setting} is {wanted}; what a cluster's "
                "nodes are cannot be changed",
                f"set AML_COMPUTE_CLUSTER_NAME to a new name, or {setting} to the cluster's",
            )
    _check_state(cluster, name)
    scale = cluster.scale_settings
    few, most = settings.AML_CLUSTER_MIN_NODES, settings.AML_CLUSTER_MAX_NODES
    if (scale.minimum_node_count, scale.maximum_node_count) != (few, most):
        console.step(f"cluster {name}: from now on {few} to {most} nodes")
        with explained(f"cluster {name}"), silenced():
            cluster.update(min_nodes=few, max_nodes=most)
            cluster.wait_for_completion(show_output=False, min_node_count=0, timeout_in_minutes=20)


def _check_state(cluster: Any, name: str) -> None:
    state = str(cluster.provisioning_state)
    if state != "Failed":
        return
    raise SlipwayError(
        f"cluster {name}: {_first(cluster.provisioning_errors) or 'it could not be made'}",
        f"remove it in Azure ML studio (Compute, {name}), then choose a SKU or region with quota",
    )


def lack_of_nodes(workspace: Any, name: str) -> str:
    """Why the cluster has no node and is making none, as it says itself; "" else."""
    with explained(f"cluster {name}"), silenced():
        from azureml.core.compute import ComputeTarget

        status = ComputeTarget(workspace, name).get_status()
    if status is None or status.current_node_count or status.allocation_state == "Resizing":
        return ""
    return _first(status.errors)


def _first(errors: Any) -> str:
    """The message of the first of a cluster's errors, "" if there are none."""
    error = (errors or [{}])[0]
    said = (error.get("error") or error).get("message") or ""
    return " ".join(str(said).split())[:400]
