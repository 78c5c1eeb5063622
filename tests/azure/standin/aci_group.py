"""A container group at work: its containers, their states and events, restarts and probes.

State names and events are those of the azure-cli recordings container/test_container_create*.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import shutil
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from docker.errors import DockerException

from tests.azure.standin import containers
from tests.azure.standin.containers import Box, PullFailed
from tests.azure.standin.directory import Principal
from tests.azure.standin.messages import Json, Refused
from tests.azure.standin.operations import settle
from tests.azure.standin.world import Operation, World

#: Seconds between looks at a group.
TICK = 0.2
#: The first pause before a restart and the longest, where Azure has 10 s and 5 min.
BACK_OFF, LONGEST = 0.5, 8.0


def clock() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class View:
    """What is to be seen of one container."""

    asked: Json
    image: str = ""
    box: Box | None = None
    state: Json = field(default_factory=lambda: {"state": "Waiting", "detailStatus": "Creating"})
    previous: Json | None = None
    restarts: int = 0
    events: list[Json] = field(default_factory=list)
    ready: bool = False
    #: When to look next and what came of it, by probe; when to restart.
    due: dict[str, float] = field(default_factory=dict)
    streak: dict[str, int] = field(default_factory=dict)
    again: float = 0.0

    def happened(self, name: str, message: str, kind: str = "Normal") -> None:
        """Add an event, or count one more of the last."""
        for event in self.events:
            if (event["name"], event["message"]) == (name, message):
                event["count"] += 1
                event["lastTimestamp"] = clock()
                return
        self.events.append(
            {
                "count": 1,
                "firstTimestamp": clock(),
                "lastTimestamp": clock(),
                "name": name,
                "message": message,
                "type": kind,
            }
        )

    def shown(self) -> Json:
        """`instanceView` of the container."""
        given = {
            "restartCount": self.restarts,
            "currentState": dict(self.state),
            "events": list(self.events),
        }
        return given if self.previous is None else {**given, "previousState": self.previous}


@dataclass
class Group:
    """One group: `body` is what was asked for, secrets included; `host` its name, "" without one."""

    world: World
    id: str
    body: Json = field(repr=False)
    host: str
    #: Who pulls from each registry.
    pullers: Mapping[str, Principal]
    operation: Operation
    views: dict[str, View]
    state: str = "Pending"
    provisioning: str = "Pending"
    events: list[Json] = field(default_factory=list)
    #: The group this one takes the place of.
    before: Group | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    @property
    def ports(self) -> list[int]:
        address = self.body["properties"].get("ipAddress") or {"ports": []}
        return [int(port["port"]) for port in address["ports"]]

    @property
    def listened(self) -> list[int]:
        """All ports that somebody asks: the group's own, the containers' and the probes'."""
        found = set(self.ports)
        for view in self.views.values():
            found |= {int(port["port"]) for port in view.asked.get("ports") or []}
            for probe in ("livenessProbe", "readinessProbe"):
                get = (view.asked.get(probe) or {}).get("httpGet")
                if get:
                    found.add(int(get["port"]))
        return sorted(found)

    @property
    def policy(self) -> str:
        return self.body["properties"].get("restartPolicy") or "Always"

    def begin(self) -> None:
        """Start the containers in the background; the operation is done when they have started."""
        self.ended = threading.Event()
        self.state = self.provisioning = "Pending"
        if self.host:
            self.world.machines[self.host] = {}
        self.thread = threading.Thread(target=self._work, name=f"aci {self.id}", daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Stop the containers, which takes a while. Not to be called with the world's lock held."""
        self.ended.set()
        if self.thread is not None:
            self.thread.join(60)
        if self.host in self.world.machines and self._is_present:
            self.world.machines[self.host] = {}
        for view in self.views.values():
            if view.box is not None:
                view.box.remove(grace=2)
                view.box = None
            view.state = {"state": "Terminated", "exitCode": 0, "finishTime": clock()}
            view.ready = False
        self.state = "Stopped"

    def leave(self) -> None:
        """End in the background, and have no host any more."""
        self.ended.set()
        self.world.machines.pop(self.host, None)
        threading.Thread(target=self._leave, name=f"aci {self.id} leaves").start()

    def _leave(self) -> None:
        self.end()
        if not self._is_present:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _is_present(self) -> bool:
        return self.world.rooms["aci"].get(self.id.lower()) is self

    @property
    def _folder(self) -> Path:
        return self.world.folder / "aci" / self.id.rpartition("/")[2]

    def logs(self, name: str, tail: int | None) -> str:
        box = self.views[name].box
        return "" if box is None else box.logs("all" if tail is None else tail)

    def _work(self) -> None:
        try:
            if self.before is not None:
                self.before.end()
                self.before = None
            failed: Refused | None = self._bring_up()
        except Exception as error:
            failed = Refused(500, "InternalServerError", f"stand-in: {error}")
        self.provisioning = "Succeeded" if failed is None else "Failed"
        self.state = "Running" if failed is None else "Failed"
        settle(self.operation, failed)
        while failed is None and not self.ended.wait(TICK):
            # A container that was removed from outside is not the end of the group.
            with suppress(DockerException):
                self._look()

    def _bring_up(self) -> Refused | None:
        """Pull and start everything; what it failed with."""
        if self.world.faults.has("aci has no capacity"):
            return self._no_capacity()
        for view in self.views.values():
            image = view.asked["image"]
            view.happened("Pulling", f'pulling image "{image}"')
            try:
                if self.world.faults.has("aci cannot pull"):
                    raise PullFailed("connection reset by peer")
                view.image = containers.pull(self.world, image, self.pullers.get(_server(image)))
            except PullFailed as error:
                view.happened("Failed", f'Failed to pull image "{image}": {error}', "Warning")
                view.state = {"state": "Waiting", "detailStatus": "ImagePullBackOff"}
                return Refused(
                    400,
                    "Failed",
                    f"Failed to pull image '{image}' of container group '{self.id.rpartition('/')[2]}': {error}",
                )
            view.happened("Pulled", f'Successfully pulled image "{image}"')
        self._run()
        return None

    def _no_capacity(self) -> Refused:
        cpu, memory = (
            sum(view.asked["resources"]["requests"][name] for view in self.views.values())
            for name in ("cpu", "memoryInGB")
        )
        message = (
            f"The requested resource is not available in the location '{self.body['location']}' at this "
            "moment. Please retry with a different resource request or in another location. Resource "
            f"requested: '{cpu:g}' CPU '{memory:g}' GB memory 'Linux' OS"
        )
        event = {"count": 1, "firstTimestamp": clock(), "lastTimestamp": clock()}
        self.events.append(
            {**event, "name": "InsufficientCapacity.", "message": message, "type": "Warning"}
        )
        return Refused(409, "ServiceUnavailable", message)

    def _run(self) -> None:
        """Start all containers: they share a network, which is the first one's."""
        first: Box | None = None
        crashes = self.world.faults.has("aci container crashes")
        for view in self.views.values():
            if self.ended.is_set():
                return
            amounts = view.asked["resources"]["requests"]
            view.box = containers.run(
                self.world,
                view.image,
                ports=self.listened,
                environment={
                    each["name"]: each.get("value", each.get("secureValue"))
                    for each in view.asked.get("environmentVariables") or []
                },
                command=view.asked.get("command"),
                folders=self._folders(view),
                beside=first,
                memory=int(amounts["memoryInGB"] * (1 << 30)),
            )
            first = first or view.box
            if crashes:
                view.box.container.kill()
            view.state = {"state": "Running", "startTime": clock(), "detailStatus": ""}
            view.happened("Started", "Started container")
            view.ready, view.due, view.streak = not view.asked.get("readinessProbe"), {}, {}
            for probe in ("livenessProbe", "readinessProbe"):
                if view.asked.get(probe):
                    delay = view.asked[probe].get("initialDelaySeconds") or 0
                    view.due[probe] = time.monotonic() + delay
        self._open()

    def _folders(self, view: View) -> dict[str, Path]:
        """The mounted volumes: secrets are files of the group's own folder."""
        at: dict[str, Path] = {}
        volumes = {each["name"]: each for each in self.body["properties"].get("volumes") or []}
        for mount in view.asked.get("volumeMounts") or []:
            folder = self._folder / mount["name"]
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in (volumes[mount["name"]].get("secret") or {}).items():
                (folder / name).write_bytes(base64.b64decode(text))
            at[mount["mountPath"]] = folder
        return at

    def _open(self) -> None:
        """Let traffic in while every container is ready."""
        if not self.host or self.ended.is_set():
            return
        box = next(iter(self.views.values())).box
        ready = box is not None and all(view.ready for view in self.views.values())
        self.world.machines[self.host] = (
            {port: ("127.0.0.1", box.ports[port]) for port in self.ports} if ready and box else {}
        )

    def _look(self) -> None:
        """One look at each container: has it ended, does it answer its probes."""
        down = False
        for view in self.views.values():
            if view.box is None:
                continue
            found = view.box.state()
            if not found["Running"] and view.state["state"] == "Running":
                self._ended(view, int(found["ExitCode"]))
            if view.state["state"] == "Running":
                for probe in list(view.due):
                    self._probe(view, probe)
            down = down or bool(view.again and time.monotonic() >= view.again)
        if down:
            self._again()
        self._open()

    def _ended(self, view: View, code: int) -> None:
        gone = {
            "state": "Terminated",
            "startTime": view.state.get("startTime"),
            "exitCode": code,
            "finishTime": clock(),
            "detailStatus": "Completed" if code == 0 else "Error",
        }
        view.ready = False
        if self.policy == "Never" or (self.policy == "OnFailure" and code == 0):
            view.state = gone
            states = [each.state for each in self.views.values()]
            if all(state["state"] == "Terminated" for state in states):
                self.state = "Failed" if any(s.get("exitCode") for s in states) else "Succeeded"
            return
        view.previous = gone
        view.state = {"state": "Waiting", "detailStatus": "CrashLoopBackOff"}
        view.happened("BackOff", "Back-off restarting failed container", "Warning")
        view.again = time.monotonic() + min(LONGEST, BACK_OFF * 2 ** min(view.restarts, 10))

    def _again(self) -> None:
        """Restart what is due; the first container's network is everyone's, so all go with it."""
        views = list(self.views.values())
        crashes = self.world.faults.has("aci container crashes")
        due = views if views[0].again else [view for view in views if view.again]
        for view in due:
            if view.box is None or self.ended.is_set():
                continue
            view.box.restart()
            if crashes:
                view.box.container.kill()
            view.restarts, view.again = view.restarts + 1, 0.0
            view.state = {"state": "Running", "startTime": clock(), "detailStatus": ""}
            view.happened("Started", "Started container")
            view.ready, view.streak = not view.asked.get("readinessProbe"), {}

    def _probe(self, view: View, name: str) -> None:
        """Ask if it is time; a ready container is let in, one that is not alive is killed."""
        asked, at = view.asked[name], time.monotonic()
        if at < view.due[name] or view.box is None:
            return
        view.due[name] = at + (asked.get("periodSeconds") or 10)
        good = _answers(view.box, asked)
        streak = view.streak.get(name, 0)
        view.streak[name] = (max(streak, 0) + 1) if good else (min(streak, 0) - 1)
        enough = view.streak[name] >= (asked.get("successThreshold") or 1)
        failed = -view.streak[name] >= (asked.get("failureThreshold") or 3)
        if not good:
            kind = "Liveness" if name == "livenessProbe" else "Readiness"
            view.happened("Unhealthy", f"{kind} probe failed: no success", "Warning")
        if name == "readinessProbe":
            view.ready = enough or (view.ready and not failed)
            # Until it is ready nobody waits for the period.
            if not view.ready:
                view.due[name] = min(view.due[name], at + 1)
        elif failed:
            view.happened("Killing", f"Killing container with id {view.box.id}.")
            view.box.container.kill()


def _server(image: str) -> str:
    return image.partition("/")[0].lower()


def _answers(box: Box, probe: Json) -> bool:
    """One probe, by the port of this machine that is the container's."""
    timeout = probe.get("timeoutSeconds") or 1
    if "exec" in probe:
        return bool(box.container.exec_run(probe["exec"]["command"]).exit_code == 0)
    get = probe["httpGet"]
    port = box.ports[get["port"]]
    connection: http.client.HTTPConnection
    if (get.get("scheme") or "http").lower() == "https":
        # A probe does not look at the certificate.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=timeout, context=context
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    headers = {each["name"]: each["value"] for each in get.get("httpHeaders") or []}
    try:
        connection.request("GET", get.get("path") or "/", headers=headers)
        return 200 <= connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def decodes(text: str) -> bool:
    """Whether a secret volume's value is base64."""
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True
