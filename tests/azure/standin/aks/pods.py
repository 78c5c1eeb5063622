"""A pod at work: scheduled, pulled, run as containers, probed, restarted, and ended with its grace.

Waits that Kubernetes counts in minutes (back-off of pulls and restarts) are seconds here; probes,
hooks and grace periods are kept as they are written.
"""

from __future__ import annotations

import copy
import http.client
import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from tests.azure.standin import containers
from tests.azure.standin.aks.cluster import Cluster, key_of, stamp
from tests.azure.standin.aks.fields import Invalid, quantity
from tests.azure.standin.containers import Box, PullFailed
from tests.azure.standin.messages import Json

#: Seconds between two tries to pull or to schedule.
BACKOFF = 1.0


class _NotYet(Exception):
    """Why a container waits: `reason` and message as its state shows them."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Pod:
    """One pod, on a thread of its own until it is gone."""

    def __init__(self, cluster: Cluster, made: Json) -> None:
        self.cluster, self.made = cluster, made
        self.spec: Json = made["spec"]
        self.boxes: list[Box] = []
        self.leaving = threading.Event()
        self.gone = threading.Event()
        self.ready_since: float | None = None
        self.restarts = 0
        self.previous = ""
        self.folder = cluster.world.folder / "aks" / made["metadata"]["uid"]
        self._show("Pending")
        threading.Thread(target=self._live, name=made["metadata"]["name"], daemon=True).start()

    @property
    def name(self) -> str:
        return str(self.made["metadata"]["name"])

    @property
    def ready(self) -> bool:
        return self.ready_since is not None and not self.leaving.is_set()

    def ready_for(self, seconds: float) -> bool:
        """Whether it has been ready so long: `available`."""
        since = self.ready_since
        return self.ready and since is not None and time.monotonic() - since >= seconds

    @property
    def asks(self) -> tuple[float, float]:
        """CPUs and bytes it requests."""
        return tuple(  # type: ignore[return-value]
            sum(
                quantity(((c.get("resources") or {}).get("requests") or {}).get(name, 0))
                for c in self.spec["containers"]
            )
            for name in ("cpu", "memory")
        )

    def logs(self, container: str, tail: int | str, *, previous: bool = False) -> str:
        """What a container printed; the one before it, once it was restarted."""
        if previous or not self.boxes:
            return self.previous
        at = [c["name"] for c in self.spec["containers"]].index(container)
        return self.boxes[at].logs(tail) if at < len(self.boxes) else ""

    def address(self, port: int | str) -> tuple[str, int] | None:
        """Where a container port (its number or name) really is."""
        for container in self.spec["containers"]:
            for each in container.get("ports") or []:
                if port in (each["containerPort"], each.get("name")) and self.boxes:
                    return "127.0.0.1", self.boxes[0].ports[each["containerPort"]]
        return None

    # Its life

    def _live(self) -> None:
        try:
            while not self._over():
                try:
                    self._schedule()
                    self._start()
                    self._watch()
                except _NotYet as waiting:
                    self._waits(waiting)
                    self.leaving.wait(BACKOFF)
            self._end()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.gone.set()

    def _over(self) -> bool:
        return self.leaving.is_set() or self.cluster.closed.is_set()

    def _schedule(self) -> None:
        if self.made["spec"].get("nodeName"):
            return
        with self.cluster.lock:
            for node in range(self.cluster.nodes):
                name = f"aks-nodepool1-{node:08d}"
                here = [p for p in self.cluster.pods.values() if p.spec.get("nodeName") == name]
                cpu = sum(p.asks[0] for p in here) + self.asks[0]
                memory = sum(p.asks[1] for p in here) + self.asks[1]
                if cpu <= self.cluster.node_cpu and memory <= self.cluster.node_memory:
                    if self.cluster.world.faults.has("no node capacity"):
                        break
                    self.spec["nodeName"] = name
                    return
        count = self.cluster.nodes
        message = (
            f"0/{count} nodes are available: {count} Insufficient cpu. preemption: 0/{count} nodes are "
            f"available: {count} No preemption victims found for incoming pod."
        )
        self.cluster.event(self.made, "FailedScheduling", message)
        raise _NotYet("Unschedulable", message)

    def _start(self) -> None:
        """Pull and create the containers, the first of them with the network."""
        if self.boxes:
            return
        ports = [p["containerPort"] for c in self.spec["containers"] for p in c.get("ports") or []]
        made: list[Box] = []
        try:
            for container in self.spec["containers"]:
                made.append(self._run(container, ports, made[0] if made else None))
        except BaseException:
            for box in reversed(made):
                box.remove()
            raise
        self.boxes = made

    def _run(self, container: Json, ports: list[int], first: Box | None) -> Box:
        world = self.cluster.world
        image = str(container["image"])
        try:
            if world.faults.has("cluster cannot pull"):
                raise PullFailed(f'Get "https://{image.partition("/")[0]}/v2/": i/o timeout')
            if not world.docker:
                raise PullFailed("the stand-in runs no containers here")
            local = containers.pull(world, image, self.cluster.kubelet)
        except PullFailed as failed:
            message = f'Failed to pull image "{image}": {failed}'
            self.cluster.event(self.made, "Failed", message)
            self.cluster.event(self.made, "BackOff", f'Back-off pulling image "{image}"')
            # Source: kubelet 1.33, which repeats why the pull before failed.
            waits = f'Back-off pulling image "{image}": ErrImagePull: {failed}'
            raise _NotYet("ImagePullBackOff", waits) from None
        crash = world.faults.has("pod crashes")
        command = [*(container.get("command") or []), *(container.get("args") or [])]
        if crash:
            command = ["/opt/venv/bin/python", "-c", "raise SystemExit('crashed: this is a test')"]
        pod = self.spec.get("securityContext") or {}
        own = container.get("securityContext") or {}
        limits = (container.get("resources") or {}).get("limits") or {}
        user = own.get("runAsUser", pod.get("runAsUser"))
        group = own.get("runAsGroup", pod.get("runAsGroup", user))
        return containers.run(
            world,
            local,
            ports=ports,
            environment=dict(self._environment(container)),
            command=command or None,
            user=f"{user}:{group}" if user is not None else None,
            read_only=bool(own.get("readOnlyRootFilesystem")),
            folders=self._folders(container),
            beside=first,
            cpus=min(quantity(limits["cpu"]), os.cpu_count() or 1) if "cpu" in limits else None,
            memory=int(quantity(limits["memory"])) if "memory" in limits else None,
        )

    def _held(self, kind: str, name: str) -> dict[str, str]:
        namespace = self.made["metadata"]["namespace"]
        try:
            return self.cluster.data(kind, namespace, name)
        except Invalid as missing:
            message = str(missing)
            self.cluster.event(self.made, "Failed", f"Error: {message}")
            raise _NotYet("CreateContainerConfigError", message) from None

    def _environment(self, container: Json) -> Iterator[tuple[str, str]]:
        sources = (("secretRef", "Secret"), ("configMapRef", "ConfigMap"))
        for each in container.get("envFrom") or []:
            for name, kind in sources:
                if name in each:
                    for key, value in self._held(kind, each[name]["name"]).items():
                        yield each.get("prefix", "") + key, value
        keys = (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap"))
        for each in container.get("env") or []:
            if "value" in each:
                yield each["name"], each["value"]
            for name, kind in keys:
                if found := (each.get("valueFrom") or {}).get(name):
                    held = self._held(kind, found["name"])
                    if found["key"] not in held:
                        raise _NotYet(
                            "CreateContainerConfigError",
                            f"couldn't find key {found['key']} in {kind} {found['name']}",
                        )
                    yield each["name"], held[found["key"]]

    def _folders(self, container: Json) -> dict[str, Path]:
        """Secrets and ConfigMaps as folders; an emptyDir at /tmp is the engine's own."""
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes") or []}
        found: dict[str, Path] = {}
        for mount in container.get("volumeMounts") or []:
            volume = volumes[mount["name"]]
            if "emptyDir" in volume:
                continue
            kind = "Secret" if "secret" in volume else "ConfigMap"
            source = volume.get("secret") or volume["configMap"]
            held = self._held(kind, source.get("secretName") or source["name"])
            names = {item["key"]: item["path"] for item in source.get("items") or []}
            folder = self.folder / mount["name"]
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            for key, text in held.items():
                if not names or key in names:
                    (folder / names.get(key, key)).write_text(text)
                    (folder / names.get(key, key)).chmod(0o444)
            found[mount["mountPath"]] = folder
        return found

    # Probes

    def _watch(self) -> None:
        """Probe until a container has to be restarted or the pod leaves."""
        began, failures, next_at = time.monotonic(), dict[str, int](), dict[str, float]()
        started = [not container.get("startupProbe") for container in self.spec["containers"]]
        passed = [not container.get("readinessProbe") for container in self.spec["containers"]]
        while not self._over():
            if not all(box.running for box in self.boxes):
                self._restart("Error", "the container exited")
                return
            for at, container in enumerate(self.spec["containers"]):
                for name in ("startupProbe", "readinessProbe", "livenessProbe"):
                    probe = container.get(name)
                    if not probe or (started[at] == (name == "startupProbe")):
                        continue
                    key, now = f"{at}{name}", time.monotonic()
                    first = began + probe.get("initialDelaySeconds", 0)
                    if now < next_at.get(key, first):
                        continue
                    next_at[key] = now + probe.get("periodSeconds", 10)
                    problem = self._probe(at, probe)
                    failures[key] = 0 if problem is None else failures.get(key, 0) + 1
                    if problem is not None:
                        what = name.removesuffix("Probe").capitalize()
                        said = f"{what} probe failed: {problem}"
                        self.cluster.event(self.made, "Unhealthy", said)
                    too_often = failures[key] >= probe.get("failureThreshold", 3)
                    if name == "startupProbe" and problem is None:
                        started[at] = True
                    elif name == "readinessProbe":
                        passed[at] = problem is None or (passed[at] and not too_often)
                    elif too_often:
                        said = f"Container {container['name']} failed {name}, will be restarted"
                        self.cluster.event(self.made, "Killing", said, "Normal")
                        self._restart("Error", said)
                        return
            self._is_ready(all(started) and all(passed))
            time.sleep(0.1)

    def _probe(self, at: int, probe: Json) -> str | None:
        """None if it passes, else why not."""
        timeout = probe.get("timeoutSeconds", 1)
        asked = probe.get("httpGet") or probe.get("tcpSocket")
        if asked is None:
            command = probe["exec"]["command"]
            code, output = self.boxes[at].container.exec_run(command)
            return None if code == 0 else output.decode("utf-8", "replace")
        place = self.address(asked["port"])
        if place is None:
            return f"no port {asked['port']}"
        try:
            if "httpGet" not in probe:
                socket.create_connection(place, timeout=timeout).close()
                return None
            connection = _connection(place, asked.get("scheme", "HTTP"), timeout)
            with closing(connection):
                connection.request("GET", asked.get("path", "/"))
                status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"Get \"http://{place[0]}:{place[1]}{asked.get('path', '')}\": {error}"
        return None if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"

    def _is_ready(self, ready: bool) -> None:
        if ready != (self.ready_since is not None):
            self.ready_since = time.monotonic() if ready else None
            self._show("Running")
        elif self.made["status"]["phase"] != "Running":
            self._show("Running")

    def _restart(self, reason: str, message: str) -> None:
        """Containers are made anew together: they share a network here that ends with the first."""
        code = next((s["ExitCode"] for b in self.boxes if not (s := b.state())["Running"]), 137)
        self.previous = "".join(box.logs() for box in self.boxes)
        for box in reversed(self.boxes):
            box.remove()
        self.boxes, self.ready_since = [], None
        self.restarts += 1
        self.cluster.event(self.made, "BackOff", "Back-off restarting failed container")
        last = {"exitCode": code, "reason": reason, "finishedAt": stamp()}
        raise _NotYet(
            "CrashLoopBackOff", f"back-off restarting failed container: {message}; {last}"
        )

    # Its end

    def _end(self) -> None:
        """The hooks, SIGTERM, and SIGKILL when the grace period is over."""
        grace = float(self.spec.get("terminationGracePeriodSeconds", 30))
        if self.cluster.closed.is_set():
            grace = 0
        threads = [
            threading.Thread(target=self._end_one, args=(at, box, grace), daemon=True)
            for at, box in enumerate(self.boxes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for box in reversed(self.boxes):
            box.remove()

    def _end_one(self, at: int, box: Box, grace: float) -> None:
        hook = (self.spec["containers"][at].get("lifecycle") or {}).get("preStop") or {}
        began = time.monotonic()
        if grace and "sleep" in hook:
            self.cluster.closed.wait(min(grace, hook["sleep"]["seconds"]))
        elif grace and "exec" in hook:
            box.container.exec_run(hook["exec"]["command"])
        left = max(0.0, grace - (time.monotonic() - began))
        with suppress(Exception):
            box.container.stop(timeout=int(left) if not self.cluster.closed.is_set() else 0)

    # What GET shows

    def _waits(self, waiting: _NotYet) -> None:
        self.ready_since = None
        self._show("Pending" if not self.restarts else "Running", waiting)

    def _show(self, phase: str, waiting: _NotYet | None = None) -> None:
        placed = "nodeName" in self.spec
        unready = "True" if self.ready_since is not None else "False"
        scheduled: Json = {"type": "PodScheduled", "status": "True" if placed else "False"}
        if waiting is not None and not placed:
            scheduled |= {"reason": waiting.reason, "message": str(waiting)}
        status: Json = {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": unready}, scheduled],
        }
        if placed:
            state: Json = {"running": {"startedAt": stamp()}}
            if waiting is not None:
                state = {"waiting": {"reason": waiting.reason, "message": str(waiting)}}
            elif not self.boxes:
                state = {"waiting": {"reason": "ContainerCreating"}}
            status["containerStatuses"] = [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "ready": self.ready_since is not None,
                    "restartCount": self.restarts,
                    "started": self.ready_since is not None,
                    "state": copy.deepcopy(state),
                }
                for container in self.spec["containers"]
            ]
        self.made["status"] = status
        if key_of(self.made) in self.cluster.objects:
            self.cluster.put(self.made)


def _connection(place: tuple[str, int], scheme: str, timeout: float) -> http.client.HTTPConnection:
    if scheme.upper() == "HTTPS":
        # A kubelet's probe looks at no certificate.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(*place, timeout=timeout, context=context)
    return http.client.HTTPConnection(*place, timeout=timeout)
