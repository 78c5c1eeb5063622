"""The controllers: replica sets and pods of deployments, and the balancers of services.

Source: kubernetes.io, "Deployments" (rolling update, revision history, progress deadline).
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
import threading
import time
from contextlib import suppress
from typing import Any

from tests.azure.standin.aks import restricted
from tests.azure.standin.aks.balancer import Balancer
from tests.azure.standin.aks.cluster import Cluster, Key, key_of
from tests.azure.standin.aks.pods import Pod
from tests.azure.standin.messages import Json

REVISION = "deployment.kubernetes.io/revision"
#: The label that a replica set adds to the template it was made from. Source: kubernetes.io,
#: "Deployments", pod-template-hash label.
HASH = "pod-template-hash"
TICK = 0.1


class Controllers:
    """One thread that brings a cluster to what its objects say."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.balancers: dict[Key, Balancer] = {}
        self.progress: dict[Key, tuple[Any, float]] = {}
        self.thread = threading.Thread(target=self._run, name="aks", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """End the pods and the balancers."""
        self.cluster.closed.set()
        self.thread.join(30)
        for balancer in self.balancers.values():
            balancer.close()
        for pod in list(self.cluster.pods.values()):
            pod.leaving.set()
            pod.gone.wait(10)

    def _run(self) -> None:
        while not self.cluster.closed.wait(TICK):
            with self.cluster.lock:
                for key in [k for k in self.cluster.objects if k[0] == "Deployment"]:
                    self._deployment(key)
                self._orphans()
                self._services()

    # Deployments

    def _deployment(self, key: Key) -> None:
        made = self.cluster.objects[key]
        spec = made["spec"]
        self._autoscale(made)
        sets = self._sets(made)
        new = self._current(made, sets)
        old = [each for each in sets if each is not new]
        wanted = int(spec["replicas"])
        limits = ((spec.get("strategy") or {}).get("rollingUpdate")) or {}
        surge = _share(limits.get("maxSurge", "25%"), wanted, up=True)
        missing = _share(limits.get("maxUnavailable", "25%"), wanted, up=False)
        settle = float(spec.get("minReadySeconds", 0))
        total = sum(len(self._pods(each)) for each in [new, *old])
        room = wanted + surge - total
        count = new["spec"]["replicas"]
        if count < wanted:
            new["spec"]["replicas"] = min(wanted, count + max(0, room))
        elif count > wanted:
            new["spec"]["replicas"] = wanted
        available = sum(p.ready_for(settle) for e in [new, *old] for p in self._pods(e))
        spare = available - (wanted - missing)
        for each in old:
            for pod in self._pods(each):
                # What is not ready serves nobody: it goes first.
                if not pod.ready_for(settle) or spare > 0:
                    spare -= pod.ready_for(settle)
                    each["spec"]["replicas"] = max(0, each["spec"]["replicas"] - 1)
                    pod.leaving.set()
        for each in [new, *old]:
            self._scale(made, each)
        self._forget(made, new, old)
        self._status(key, made, new, old, wanted, settle)

    def _autoscale(self, made: Json) -> None:
        """An autoscaler's bounds hold; what the load would do to the number is not played."""
        metadata = made["metadata"]
        for each in self.cluster.of("HorizontalPodAutoscaler", metadata["namespace"]):
            spec = each["spec"]
            if spec["scaleTargetRef"]["name"] == metadata["name"]:
                now = made["spec"]["replicas"]
                if not now:
                    continue  # what somebody scaled to nothing is left alone
                low, high = spec.get("minReplicas", 1), spec["maxReplicas"]
                made["spec"]["replicas"] = max(low, min(high, now))
                each["status"] = {
                    "currentReplicas": now,
                    "desiredReplicas": made["spec"]["replicas"],
                }

    def _sets(self, made: Json) -> list[Json]:
        owner = made["metadata"]["uid"]
        found = self.cluster.of("ReplicaSet", made["metadata"]["namespace"])
        return [e for e in found if e["metadata"]["ownerReferences"][0]["uid"] == owner]

    def _current(self, made: Json, sets: list[Json]) -> Json:
        """The replica set of the present template, made when there is none."""
        template = made["spec"]["template"]
        top = max((int(e["metadata"]["annotations"][REVISION]) for e in sets), default=0)
        for each in sets:
            if without_hash(each["spec"]["template"]) == template:
                if int(each["metadata"]["annotations"][REVISION]) != top:
                    each["metadata"]["annotations"][REVISION] = str(top + 1)
                self._note_revision(made, each)
                return each
        text = json.dumps(template, sort_keys=True)
        mark = hashlib.sha256(text.encode()).hexdigest()[:10]
        metadata = made["metadata"]
        created: Json = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{metadata['name']}-{mark}",
                "namespace": metadata["namespace"],
                "labels": {**(template.get("metadata") or {}).get("labels", {}), HASH: mark},
                "annotations": {REVISION: str(top + 1)},
                "ownerReferences": [
                    {"kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"]}
                ],
            },
            "spec": {"replicas": 0, "template": copy.deepcopy(template)},
        }
        created["spec"]["template"]["metadata"]["labels"][HASH] = mark
        self.cluster.put(created)
        self._note_revision(made, created)
        return created

    @staticmethod
    def _note_revision(made: Json, current: Json) -> None:
        annotations = made["metadata"].setdefault("annotations", {})
        annotations[REVISION] = current["metadata"]["annotations"][REVISION]

    def _pods(self, replicas: Json) -> list[Pod]:
        uid = replicas["metadata"]["uid"]
        return [
            pod
            for pod in self.cluster.pods.values()
            if pod.made["metadata"]["ownerReferences"][0]["uid"] == uid and not pod.leaving.is_set()
        ]

    def _scale(self, made: Json, replicas: Json) -> None:
        pods = self._pods(replicas)
        wanted = replicas["spec"]["replicas"]
        for pod in pods[wanted:]:
            pod.leaving.set()
        for _ in range(wanted - len(pods)):
            template = copy.deepcopy(replicas["spec"]["template"])
            if not self._admitted(replicas, template["spec"]):
                return
            metadata = template.get("metadata") or {}
            name = replicas["metadata"]["name"]
            suffix = "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
            created: Json = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    **metadata,
                    "name": f"{name}-{suffix}",
                    "namespace": made["metadata"]["namespace"],
                    "labels": dict(replicas["metadata"]["labels"]),
                    "ownerReferences": [
                        {"kind": "ReplicaSet", "name": name, "uid": replicas["metadata"]["uid"]}
                    ],
                },
                "spec": template["spec"],
            }
            self.cluster.put(created)
            self.cluster.pods[key_of(created)] = Pod(self.cluster, created)

    def _admitted(self, replicas: Json, spec: Json) -> bool:
        namespace = self.cluster.get("Namespace", "", replicas["metadata"]["namespace"])
        level = (namespace["metadata"].get("labels") or {}).get(restricted.LABEL)
        wrong = restricted.violations(spec) if level == "restricted" else []
        if wrong:
            name = replicas["metadata"]["name"]
            message = (
                f'Error creating: pods "{name}-xxxxx" is forbidden: violates PodSecurity '
                f"\"restricted:latest\": {', '.join(wrong)}"
            )
            self.cluster.event(replicas, "FailedCreate", message)
        return not wrong

    def _forget(self, made: Json, new: Json, old: list[Json]) -> None:
        """Keep as many old replica sets as the history holds."""
        idle = [e for e in old if not e["spec"]["replicas"] and not self._pods(e)]
        idle.sort(key=lambda e: int(e["metadata"]["annotations"][REVISION]))
        for each in idle[: max(0, len(idle) - made["spec"]["revisionHistoryLimit"])]:
            self.cluster.objects.pop(key_of(each), None)

    def _status(
        self, key: Key, made: Json, new: Json, old: list[Json], wanted: int, settle: float
    ) -> None:
        mine, others = self._pods(new), [p for each in old for p in self._pods(each)]
        ready = sum(p.ready for p in [*mine, *others])
        available = sum(p.ready_for(settle) for p in [*mine, *others])
        status: Json = {
            "observedGeneration": made["metadata"].get("generation", 1),
            "replicas": len(mine) + len(others),
            "updatedReplicas": len(mine),
            "readyReplicas": ready,
            "availableReplicas": available,
            "unavailableReplicas": max(0, wanted - available),
        }
        done = len(mine) == wanted and not others and available >= wanted
        seen = (new["metadata"]["uid"], len(mine), ready, available, len(others), done)
        before, since = self.progress.get(key, (None, 0.0))
        if seen != before:
            since = time.monotonic()
            self.progress[key] = (seen, since)
        late = not done and time.monotonic() - since > made["spec"]["progressDeadlineSeconds"]
        name = new["metadata"]["name"]
        progressing: Json = {
            "type": "Progressing",
            "status": "False" if late else "True",
            "reason": "NewReplicaSetAvailable" if done else "ReplicaSetUpdated",
            "message": f'ReplicaSet "{name}" is progressing.',
        }
        if done:
            progressing["message"] = f'ReplicaSet "{name}" has successfully progressed.'
        if late:
            progressing |= {
                "reason": "ProgressDeadlineExceeded",
                "message": f'ReplicaSet "{name}" has timed out progressing.',
            }
        limits = ((made["spec"].get("strategy") or {}).get("rollingUpdate")) or {}
        least = wanted - _share(limits.get("maxUnavailable", "25%"), wanted, up=False)
        enough = available >= least
        status["conditions"] = [
            {
                "type": "Available",
                "status": "True" if enough else "False",
                "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            },
            progressing,
        ]
        if made.get("status") != status:
            made["status"] = status
            self.cluster.put(made)
        for each in [new, *old]:
            pods = self._pods(each)
            each["status"] = {"replicas": len(pods), "readyReplicas": sum(p.ready for p in pods)}

    def _orphans(self) -> None:
        """Pods whose owner is gone leave; those that have left are forgotten."""
        uids = {each["metadata"]["uid"] for each in self.cluster.objects.values()}
        for key, replicas in list(self.cluster.objects.items()):
            if key[0] == "ReplicaSet":
                owner = replicas["metadata"]["ownerReferences"][0]["uid"]
                if owner not in uids:
                    del self.cluster.objects[key]
                    uids.discard(replicas["metadata"]["uid"])
        for key, pod in list(self.cluster.pods.items()):
            if key not in self.cluster.objects:
                pod.leaving.set()
            if pod.made["metadata"]["ownerReferences"][0]["uid"] not in uids:
                pod.leaving.set()
            if pod.gone.is_set():
                del self.cluster.pods[key]
                self.cluster.objects.pop(key, None)

    # Services

    def _services(self) -> None:
        found = {k: e for k, e in self.cluster.objects.items() if k[0] == "Service"}
        for key in [k for k in self.balancers if k not in found]:
            self.balancers.pop(key).close()
        for key, service in found.items():
            if service["spec"].get("type") != "LoadBalancer":
                continue
            balancer = self.balancers.get(key)
            if balancer is None:
                balancer = self.balancers[key] = Balancer(self.cluster, key)
            with suppress(KeyError):
                balancer.update(service)


def without_hash(template: Json) -> Json:
    """A replica set's template as its deployment has it."""
    given = copy.deepcopy(template)
    given["metadata"]["labels"].pop(HASH, None)
    return given


def _share(text: object, of: int, *, up: bool) -> int:
    """25% of a number, rounded up for a surge and down for what may be missing."""
    if isinstance(text, str) and text.endswith("%"):
        part = int(text[:-1]) * of / 100
        return math.ceil(part) if up else math.floor(part)
    return int(str(text))
