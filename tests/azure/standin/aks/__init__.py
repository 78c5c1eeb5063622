"""Azure Kubernetes Service: clusters that are there already, and commands run in them.

A cluster's objects are in memory; its pods are real containers. Clients reach it by
`az aks command invoke` only, as with a private cluster.
Sources: REST spec containerservice (ManagedClusters_RunCommand, _GetCommandResult); azure-cli's
acs/custom.py and _polling.py for what they are asked.
"""

from __future__ import annotations

import base64
import io
import re
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.azure.standin.aks import kubectl
from tests.azure.standin.aks.cluster import Cluster
from tests.azure.standin.aks.rollout import Controllers
from tests.azure.standin.directory import directory
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.resources import ResourceId, ResourceType, find
from tests.azure.standin.routes import ARM
from tests.azure.standin.shapes import ANY, TEXT, TRACKED, Map, Optional, check_shape
from tests.azure.standin.world import World, new_id, now

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
PATH = "/subscriptions/{s}/resourceGroups/{g}/providers/" + TYPE + "/{name}"
#: What a command may print before it is cut. Source: learn.microsoft.com/azure/aks/access-private-cluster.
MOST_LOG = 512 * 1024
#: The most a request's files may be, in bytes of base64. *Assumed*: ARM's limit of a request's body.
MOST_CONTEXT = 4 * 2**20


@dataclass
class Command:
    """One command that runs or ran."""

    id: str
    started: str
    finished: str = ""
    code: int = 0
    logs: str = ""
    #: Why it could not be run at all.
    reason: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def shown(self) -> Json:
        if not self.done.is_set():
            properties: Json = {"provisioningState": "Running", "startedAt": self.started}
        elif self.reason:
            properties = {"provisioningState": "Failed", "reason": self.reason}
        else:
            properties = {
                "provisioningState": "Succeeded",
                "exitCode": self.code,
                "startedAt": self.started,
                "finishedAt": self.finished,
                "logs": self.logs,
            }
        return {"id": self.id, "properties": properties}


def clusters(world: World) -> dict[str, Cluster]:
    """Those there are, by resource key."""
    found: dict[str, Cluster] = world.rooms.setdefault("clusters", {})
    return found


def make_cluster(
    world: World, group_id: str, name: str, region: str = "westeurope", *, nodes: int = 3
) -> str:
    """A cluster in a group that is there, as somebody made it before; its id.

    Its kubelet's identity is `<name>-agentpool`: give it AcrPull with `access.grant`.
    """
    made = f"{group_id}/providers/{TYPE}/{name}"
    node_group = f"MC_{group_id.rpartition('/')[2]}_{name}_{region}"
    kubelet_id = (
        f"{group_id.rpartition('/')[0]}/{node_group}/providers/"
        f"Microsoft.ManagedIdentity/userAssignedIdentities/{name}-agentpool"
    )
    kubelet = directory(world).add_identity(f"{name}-agentpool", kubelet_id)
    cluster = Cluster(world, made, region, kubelet, nodes)
    controllers = Controllers(cluster)
    world.closing.append(controllers.close)
    clusters(world)[made.lower()] = cluster
    pool = {
        "name": "nodepool1",
        "count": nodes,
        "vmSize": "Standard_DS2_v2",
        "mode": "System",
        "osType": "Linux",
        "provisioningState": "Succeeded",
        "powerState": {"code": "Running"},
        "orchestratorVersion": "1.33",
        "currentOrchestratorVersion": "1.33.5",
    }
    world.resources[made.lower()] = {
        "id": made,
        "name": name,
        "type": TYPE,
        "location": region,
        "tags": None,
        "sku": {"name": "Base", "tier": "Free"},
        "identity": {"type": "SystemAssigned", "principalId": new_id(), "tenantId": new_id()},
        "properties": {
            "provisioningState": "Succeeded",
            "powerState": {"code": "Running"},
            "kubernetesVersion": "1.33",
            "currentKubernetesVersion": "1.33.5",
            "dnsPrefix": f"{name}-dns",
            "fqdn": f"{name}-dns-1234.hcp.{region}.azmk8s.io",
            "agentPoolProfiles": [pool],
            "nodeResourceGroup": node_group,
            "enableRBAC": True,
            "networkProfile": {"networkPlugin": "azure", "loadBalancerSku": "standard"},
            "identityProfile": {
                "kubeletidentity": {
                    "resourceId": kubelet_id,
                    "clientId": kubelet.app_id,
                    "objectId": kubelet.object_id,
                }
            },
            "disableLocalAccounts": False,
        },
    }
    return made


def _check(world: World, target: ResourceId, body: Json) -> None:
    """Clusters are there or not: nothing here makes or changes one."""
    check_shape(
        body,
        {
            **TRACKED,
            "sku": Optional(ANY),
            "identity": Optional(ANY),
            "properties": Optional(Map(ANY)),
        },
        TYPE,
    )
    raise Refused(
        501, "StandInMakesNoClusters", "The stand-in's clusters are made by `make_cluster`."
    )


def _delete(world: World, target: ResourceId, resource: Json) -> None:
    cluster = clusters(world).pop(target.key, None)
    if cluster is not None:
        cluster.closed.set()


def _files(text: str) -> dict[str, bytes]:
    """The files of a request: a zip in base64."""
    if not text:
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(text))) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (ValueError, zipfile.BadZipFile):
        raise Refused(
            400, "BadRequest", "The context of the command is not a zip file in base64."
        ) from None


def _run(cluster: Cluster, command: Command, text: str, files: dict[str, bytes]) -> None:
    try:
        command.code, logs = kubectl.run(cluster, text, files)
        command.logs = logs[-MOST_LOG:]
    except Exception as error:  # a bug of ours must not leave a command running for ever
        command.code, command.logs = 1, f"the stand-in is broken: {error!r}"
    command.finished = now()
    command.done.set()


def _begin(world: World, resource: Json, body: Json) -> Command:
    """Start what is asked for on a thread."""
    cluster = clusters(world)[str(resource["id"]).lower()]
    if resource["properties"]["powerState"]["code"] != "Running" or world.faults.has(
        "cluster stopped"
    ):
        raise Refused(
            400,
            "OperationNotAllowed",
            "The cluster is not running: run command is not allowed while the managed cluster is stopped.",
        )
    if len(body.get("context") or "") > MOST_CONTEXT:
        raise Refused(413, "RequestEntityTooLarge", "The request content is too large.")
    command = Command(new_id().replace("-", ""), now())
    commands: dict[str, Command] = world.rooms.setdefault("commands", {})
    commands[command.id] = command
    files = _files(body.get("context") or "")
    if world.faults.has("command invoke fails"):
        command.reason = (
            "KubernetesPerformanceError: failed to run command in managed cluster: the command pod "
            "aks-command/command was not scheduled in time"
        )
        command.done.set()
        return command
    if world.faults.has("command invoke hangs"):
        return command
    work: Callable[[], None] = lambda: _run(cluster, command, body["command"], files)  # noqa: E731
    threading.Thread(target=work, name=f"command {command.id}", daemon=True).start()
    return command


def add(parts: Parts) -> None:
    """The type, run command and its results."""
    faults = parts.world.faults
    faults.declare("cluster cannot pull", "a node's pull of an image times out")
    faults.declare("pod crashes", "a pod's container exits as soon as it starts")
    faults.declare("no node capacity", "no node has room for another pod")
    faults.declare("cluster stopped", "the cluster was stopped and runs no command")
    faults.declare("command invoke fails", "the command's own pod does not come up")
    faults.declare("command invoke hangs", "a command never comes to an end")
    parts.types.add(ResourceType(TYPE, VERSIONS, SPEC, check=_check, delete=_delete))

    @parts.routes.add(ARM, "POST", PATH + "/runCommand", source=SPEC, versions=VERSIONS)
    def run_command(world: World, request: Request, s: str, g: str, name: str) -> Answer:
        at = request.path.rpartition("/")[0]
        resource = find(world, at)
        body = request.mapping()
        check_shape(
            body,
            {"command": TEXT, "context": Optional(TEXT), "clusterToken": Optional(TEXT)},
            "RunCommandRequest",
        )
        command = _begin(world, resource, body)
        place = f"https://{ARM}{at}/commandResults/{command.id}?api-version={request.api_version}"
        return Answer(202, command.shown(), {"Location": place, "Retry-After": "1"})

    @parts.routes.add(
        ARM, "GET", PATH + "/commandResults/{command}", source=SPEC, versions=VERSIONS, slow=True
    )
    def result(world: World, request: Request, s: str, g: str, name: str, command: str) -> Answer:
        found = world.rooms.get("commands", {}).get(command)
        if found is None or not re.fullmatch(r"\w+", command):
            raise Refused(404, "NotFound", f"The command {command} was not found.")
        # A moment's patience here spares the client a round of its own, which takes five seconds.
        found.done.wait(1)
        time.sleep(0)
        return Answer(200 if found.done.is_set() else 202, found.shown())
