"""One cluster's objects, as the API server keeps them: apply, delete, find, events."""

from __future__ import annotations

import base64
import copy
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.azure.standin.aks.fields import KINDS, Invalid, decode, quantity
from tests.azure.standin.directory import Principal
from tests.azure.standin.messages import Json
from tests.azure.standin.world import World, new_id

if TYPE_CHECKING:
    from tests.azure.standin.aks.pods import Pod

LAST = "kubectl.kubernetes.io/last-applied-configuration"
Key = tuple[str, str, str]  # kind, namespace, name


def stamp() -> str:
    """The present as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Cluster:
    """`nodes` and what each has for pods, after what the system takes. Source: AKS's own figures for
    a Standard_DS2_v2: 1900m CPU and about 5 GiB."""

    world: World
    id: str
    region: str
    #: Who pulls images.
    kubelet: Principal
    nodes: int = 3
    node_cpu: float = 1.9
    node_memory: float = 4.5 * 2**30
    objects: dict[Key, Json] = field(default_factory=dict)
    pods: dict[Key, Pod] = field(default_factory=dict)
    #: Addresses that are taken: host names and IPs by service.
    hosts: dict[Key, list[str]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    closed: threading.Event = field(default_factory=threading.Event)
    version: int = 1000
    #: Somebody stopped it: its API server answers nothing.
    stopped: bool = False
    #: Ends what its controllers run.
    close: Callable[[], None] = field(default=lambda: None)

    def __post_init__(self) -> None:
        for name in ("default", "kube-system"):
            self.put(_object("v1", "Namespace", "", name))

    # Objects

    def put(self, made: Json) -> Json:
        """Store an object as it is, with a version of its own."""
        with self.lock:
            metadata = made["metadata"]
            self.version += 1
            metadata.setdefault("uid", new_id())
            metadata.setdefault("creationTimestamp", stamp())
            metadata["resourceVersion"] = str(self.version)
            self.objects[key_of(made)] = made
            return made

    def get(self, kind: str, namespace: str, name: str) -> Json:
        """Invalid (NotFound) if it is not there."""
        found = self.objects.get((kind, namespace if KINDS[kind][1] else "", name))
        if found is None:
            resource, _, group = KINDS[kind][2].partition(".")
            plural = resource[:-1] + "ies" if resource.endswith("y") else resource + "s"
            raise Invalid(f'{plural}{"." + group if group else ""} "{name}" not found', "NotFound")
        return found

    def of(self, kind: str, namespace: str, labels: Mapping[str, str] = {}) -> Iterator[Json]:
        """Objects of a kind whose labels hold these, the oldest first."""
        with self.lock:
            found = [
                each
                for (k, n, _), each in self.objects.items()
                if k == kind and (n == namespace or not KINDS[kind][1])
            ]
        for each in found:
            has = each["metadata"].get("labels") or {}
            if labels.items() <= has.items():
                yield each

    def event(self, about: Json, reason: str, message: str, kind: str = "Warning") -> None:
        """Say what happened to an object; the same again only counts."""
        with self.lock:
            metadata = about["metadata"]
            namespace = str(metadata.get("namespace", ""))
            for each in self.of("Event", namespace):
                same = each["involvedObject"]["name"] == metadata["name"]
                if same and each["reason"] == reason and each["message"] == message:
                    each["count"] += 1
                    each["lastTimestamp"] = stamp()
                    return
            made = _object("v1", "Event", namespace, f"{metadata['name']}.{new_id()[:16]}")
            made |= {
                "reason": reason,
                "message": message,
                "type": kind,
                "count": 1,
                "firstTimestamp": stamp(),
                "lastTimestamp": stamp(),
                "involvedObject": {
                    "kind": about["kind"],
                    "namespace": namespace,
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            }
            self.put(made)

    # What kubectl does to them

    def apply(self, document: Any, namespace: str, *, dry: bool = False) -> tuple[Json, str]:
        """A manifest merged into what is there; the object and created, configured or unchanged.

        Source: kubernetes.io, "Declarative Management", how apply calculates differences: fields that
        were applied before and are no more are removed, those of others stay, lists are replaced.
        """
        wanted = copy.deepcopy(decode(document))
        kind = wanted["kind"]
        metadata = wanted["metadata"]
        if KINDS[kind][1]:
            metadata.setdefault("namespace", namespace)
            if ("Namespace", "", metadata["namespace"]) not in self.objects:
                raise Invalid(f'namespaces "{metadata["namespace"]}" not found', "NotFound")
        applied = json.dumps(wanted, sort_keys=True)
        with self.lock:
            live = self.objects.get(key_of(wanted))
            if live is None:
                made = copy.deepcopy(wanted)
            else:
                before = json.loads((live["metadata"].get("annotations") or {}).get(LAST, "{}"))
                made = _merged(live, before, wanted)
            _settle(made, live)
            made["metadata"]["annotations"] = {
                **(made["metadata"].get("annotations") or {}),
                LAST: applied,
            }
            _check(made, live)
            if live is not None and _plain(live) == _plain(made):
                return live, "unchanged"
            if live is not None and live.get("spec") != made.get("spec"):
                made["metadata"]["generation"] = live["metadata"].get("generation", 1) + 1
            if not dry:
                made["metadata"].setdefault("generation", 1)
                self.put(made)
            return made, "created" if live is None else "configured"

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object, and with a namespace all in it; the controllers end what hangs on it."""
        with self.lock:
            self.get(kind, namespace, name)
            self.objects.pop((kind, namespace if KINDS[kind][1] else "", name), None)
            if kind == "Namespace":
                for key in [k for k in self.objects if k[1] == name]:
                    del self.objects[key]

    def data(self, kind: str, namespace: str, name: str) -> dict[str, str]:
        """What a Secret or ConfigMap holds, as text; Invalid if it is not there."""
        found = self.get(kind, namespace, name)
        held = found.get("data") or {}
        if kind == "Secret":
            return {k: base64.b64decode(v).decode() for k, v in held.items()}
        return dict(held)


def _object(version: str, kind: str, namespace: str, name: str) -> Json:
    metadata: Json = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def key_of(made: Json) -> Key:
    """Where an object is kept."""
    metadata = made["metadata"]
    return str(made["kind"]), str(metadata.get("namespace", "")), str(metadata["name"])


def _merged(live: Any, before: Any, wanted: Any) -> Any:
    if not isinstance(live, dict) or not isinstance(wanted, dict):
        return copy.deepcopy(wanted)
    old = before if isinstance(before, dict) else {}
    given = {k: copy.deepcopy(v) for k, v in live.items() if k in wanted or k not in old}
    for name, value in wanted.items():
        given[name] = _merged(live.get(name), old.get(name), value)
    return given


def _plain(made: Json) -> Json:
    """An object without what the server counts, to compare."""
    metadata = dict(made["metadata"])
    for name in ("resourceVersion", "generation"):
        metadata.pop(name, None)
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop(LAST, None)
    return {**made, "metadata": {**metadata, "annotations": annotations}, "status": None}


def _settle(made: Json, live: Json | None) -> None:
    """Defaults, and what the server writes otherwise than it was sent."""
    if made["kind"] == "Secret":
        made.setdefault("type", "Opaque")
        plain = made.pop("stringData", None) or {}
        encoded = {k: base64.b64encode(v.encode()).decode() for k, v in plain.items()}
        # stringData is written over data, and what it no longer names stays unless data was applied.
        made["data"] = {**(made.get("data") or {}), **encoded}
    elif made["kind"] == "Deployment":
        made["spec"].setdefault("replicas", 1)
        made["spec"].setdefault("revisionHistoryLimit", 10)
        made["spec"].setdefault("progressDeadlineSeconds", 600)
    elif made["kind"] == "Service":
        made["spec"].setdefault("type", "ClusterIP")
        made["spec"].setdefault("sessionAffinity", "None")


def _invalid(made: Json, what: str) -> Invalid:
    return Invalid(f'The {made["kind"]} "{made["metadata"]["name"]}" is invalid: {what}')


def _check(made: Json, live: Json | None) -> None:
    """What the API server refuses beyond the shape."""
    kind, spec = made["kind"], made.get("spec") or {}
    if kind == "Deployment":
        selector = spec["selector"].get("matchLabels") or {}
        labels = (spec["template"].get("metadata") or {}).get("labels") or {}
        if not selector.items() <= labels.items():
            raise _invalid(
                made,
                f"spec.template.metadata.labels: Invalid value: {json.dumps(labels)}: "
                "`selector` does not match template `labels`",
            )
        if live is not None and live["spec"]["selector"] != spec["selector"]:
            raise _invalid(
                made, f"spec.selector: Invalid value: {json.dumps(selector)}: field is immutable"
            )
        _check_pod(made, spec["template"]["spec"])
    elif kind == "HorizontalPodAutoscaler":
        if spec["maxReplicas"] < spec.get("minReplicas", 1):
            raise _invalid(
                made,
                f"spec.maxReplicas: Invalid value: {spec['maxReplicas']}: must be greater than or equal to "
                "`minReplicas`",
            )
    elif kind == "PodDisruptionBudget":
        if "minAvailable" in spec and "maxUnavailable" in spec:
            raise _invalid(made, "spec: minAvailable and maxUnavailable cannot be both set")
    elif kind == "Service":
        ports = spec.get("ports") or []
        if len(ports) > 1 and any("name" not in port for port in ports):
            raise _invalid(made, "spec.ports[0].name: Required value")


def _check_pod(made: Json, spec: Json) -> None:
    where = "spec.template.spec"
    volumes = {volume["name"] for volume in spec.get("volumes") or []}
    names: set[str] = set()
    for at, container in enumerate(spec["containers"]):
        here = f"{where}.containers[{at}]"
        if not container.get("image"):
            raise _invalid(made, f"{here}.image: Required value")
        if container["name"] in names:
            raise _invalid(made, f'{here}.name: Duplicate value: "{container["name"]}"')
        names.add(container["name"])
        ports = {port.get("name") for port in container.get("ports") or []}
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in volumes:
                raise _invalid(made, f'{here}.volumeMounts[0].name: Not found: "{mount["name"]}"')
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            port = (container.get(probe) or {}).get("httpGet", {}).get("port")
            if isinstance(port, str) and port not in ports:
                raise _invalid(made, f'{here}.{probe}.httpGet.port: Invalid value: "{port}"')
        resources = container.get("resources") or {}
        for name, limit in (resources.get("limits") or {}).items():
            asked = (resources.get("requests") or {}).get(name, limit)
            if quantity(asked) > quantity(limit):
                raise _invalid(
                    made,
                    f'{here}.resources.requests: Invalid value: "{asked}": must be less than or equal to '
                    f"{name} limit of {limit}",
                )
