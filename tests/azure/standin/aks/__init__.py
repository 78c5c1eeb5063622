"""Azure Kubernetes Service: clusters, and commands run in them.

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

from tests.azure.standin import operations
from tests.azure.standin.aks import kubectl
from tests.azure.standin.aks.cluster import Cluster
from tests.azure.standin.aks.managed import (
    KIND,
    SPEC,
    TYPE,
    VERSIONS,
    attach,
    clusters,
    make_cluster,
)
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.resources import find
from tests.azure.standin.routes import ARM
from tests.azure.standin.shapes import TEXT, Optional, check_shape
from tests.azure.standin.world import World, new_id, now

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

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
    if cluster.stopped:
        # Assumed, after what other operations are told of a stopped cluster: MicrosoftDocs/azure-docs#85161.
        raise Refused(
            400,
            "OperationNotAllowed",
            "managed cluster is in Provisioning State(Succeeded) and Power State(Stopped), running a "
            "command cannot be performed",
        )
    if world.faults.has("command pod does not start"):
        # Source: learn.microsoft.com/troubleshoot/azure/azure-kubernetes/connectivity/
        # resolve-az-aks-command-invoke-failures; that it is the POST's answer: Azure/azure-cli#27776.
        # Its status is assumed.
        raise Refused(
            400,
            "KubernetesPerformanceError",
            f"Failed to run command due to cluster perf issue, container command-{new_id().replace('-', '')} "
            "in aks-command namespace did not start within 30s on your cluster, retry may helps. If issue "
            "persist, you may need to tune your cluster with better performance (larger node/paid tier).",
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
    faults.declare("command pod does not start", "a command's own pod does not come up")
    faults.declare("command invoke fails", "a command that was begun fails, and its result says so")
    faults.declare("command invoke hangs", "a command never comes to an end")
    faults.declare("no AKS quota", "the region has no cores left for a cluster")
    parts.types.add(KIND)

    def power(world: World, request: Request, s: str, g: str, name: str) -> Answer:
        at, _, verb = request.path.rpartition("/")
        cluster = clusters(world)[str(find(world, at)["id"]).lower()]
        cluster.stopped = verb.lower() == "stop"
        operation = operations.begin(world, 1, dict)
        return Answer(202, None, operations.location_headers(operation, request.api_version))

    for verb in ("/stop", "/start"):
        parts.routes.add(ARM, "POST", PATH + verb, source=SPEC, versions=VERSIONS)(power)

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


__all__ = ["TYPE", "add", "attach", "clusters", "make_cluster"]
