"""What kubectl prints of a cluster, and why pods do not run."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: The label that tells the pods of one deployment from another's.
NUMBER = "slipway.number"
REVISION, HASH = "deployment.kubernetes.io/revision", "pod-template-hash"
#: What a pull is told where the cluster's identity may not pull.
DENIED = re.compile(r"\b40[13]\b|unauthorized|forbidden|denied|authoriz", re.IGNORECASE)
#: What no node has enough of, as the scheduler says it.
NO_ROOM = re.compile(r"\d+/\d+ nodes are available")


@dataclass(frozen=True)
class Revisions:
    """The pods' templates that the cluster has, by the number of their deployment; `live` is the number
    of those that it runs or brings up."""

    live: str
    templates: Mapping[str, Mapping[str, Any]]


def revisions(deployment: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> Revisions:
    """Those of a Deployment and its ReplicaSets, which are among `items`."""
    # In their order: `kubectl rollout restart` gives a number a second one.
    ordered = sorted(
        items, key=lambda each: int((each["metadata"].get("annotations") or {}).get(REVISION, 0))
    )
    templates = {_number(each): _template(each) for each in [*ordered, deployment]}
    return Revisions(_number(deployment), templates)


def _number(item: Mapping[str, Any]) -> str:
    return str((item["spec"]["template"]["metadata"].get("labels") or {}).get(NUMBER, ""))


def _template(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The template without the label by which Kubernetes tells the pods of ReplicaSets apart."""
    template = item["spec"]["template"]
    labels = {k: v for k, v in template["metadata"]["labels"].items() if k != HASH}
    return {**template, "metadata": {**template["metadata"], "labels": labels}}


def parse(said: str) -> dict[str, Any]:
    """The JSON object that kubectl printed first; {} if it printed none."""
    try:
        found = json.JSONDecoder().raw_decode(said.lstrip())[0]
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def rest(said: str) -> list[str]:
    """The lines that came after that object."""
    text = said.lstrip()
    with contextlib.suppress(ValueError):
        text = text[json.JSONDecoder().raw_decode(text)[1] :]
    return [line for line in text.splitlines() if line.strip()]


def last(said: str) -> str:
    """The last line that says something, without kubectl's word for what it is."""
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1].strip().removeprefix("error: ") if lines else "it said nothing"


def reasons(found: Mapping[str, Any]) -> list[str]:
    """Why containers of the pods do not run, each reason once."""
    return sorted({reason for pod in found.get("items") or [] for reason in _waiting(pod)})


def _waiting(pod: Mapping[str, Any]) -> Iterator[str]:
    """Why containers of a pod do not run."""
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason in ("", "ContainerCreating", "PodInitializing"):
            continue
        # The innermost cause of a pull that failed comes last.
        cause = str(waiting.get("message") or "").rpartition(": ")[2] if "Pull" in reason else ""
        yield f"{status['name']}: {reason}{f' ({cause[:200]})' if cause else ''}"
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("reason") == "Unschedulable":
            yield str(condition.get("message") or "0/0 nodes are available")


def mend(why: list[str], group: str, cluster: str, registry: str) -> str:
    """What helps against these reasons; "" where the log has to tell."""
    where = f"--resource-group {group} --name {cluster}"
    if any(NO_ROOM.search(reason) for reason in why):
        return (
            f"give the cluster more nodes (az aks scale {where} --node-count …) or set a smaller "
            "DEPLOY_CPU, DEPLOY_MEMORY_GB or AKS_MIN_REPLICAS, then run the verb again"
        )
    pulls = [reason for reason in why if "Pull" in reason]
    if any(DENIED.search(reason) for reason in pulls):
        return (
            f"let an Owner allow the cluster to pull: az aks update {where} --attach-acr {registry}"
            ", then run the verb again"
        )
    return "see whether the cluster reaches the registry, then run the verb again" if pulls else ""
