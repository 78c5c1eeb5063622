"""Why pods do not run, and what helps: from objects as a cluster gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scripts.platforms.azure import pods

REGISTRY = "kiln42amlcr"
IMAGE = "kiln42amlcr.azurecr.io/wood@sha256:12"
BACK_OFF = f'Back-off pulling image "{IMAGE}": ErrImagePull: '
UNAUTHORIZED = (
    f'failed to pull and unpack image "{IMAGE}": failed to resolve reference "{IMAGE}": failed to authorize: '
    "failed to fetch anonymous token: unexpected status from GET request to https://kiln42amlcr.azurecr.io"
    "/oauth2/token?scope=repository%3Awood%3Apull&service=kiln42amlcr.azurecr.io: 401 Unauthorized"
)
FULL = (
    "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: 3 No preemption "
    "victims found for incoming pod."
)


def waits(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"status": {"containerStatuses": [{"name": "scoring", "state": state}]}}


def unplaced(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "reason": "Unschedulable", "message": message}
    return {"status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("pod", "reason", "mend"),
    [
        (
            waits("ImagePullBackOff", BACK_OFF + UNAUTHORIZED),
            "scoring: ImagePullBackOff (401 Unauthorized)",
            "az aks update --resource-group g --name k --attach-acr kiln42amlcr",
        ),
        (
            waits(
                "ErrImagePull", 'Get "https://kiln42amlcr.azurecr.io/v2/": dial tcp: i/o timeout'
            ),
            "scoring: ErrImagePull (i/o timeout)",
            "see whether the cluster reaches the registry",
        ),
        (unplaced(FULL), FULL, "az aks scale --resource-group g --name k --node-count"),
        (
            waits("CrashLoopBackOff", "back-off 10s restarting failed container"),
            "scoring: CrashLoopBackOff",
            "",
        ),
    ],
)
def test_a_reason_has_its_mend(pod: dict[str, Any], reason: str, mend: str) -> None:
    said = json.dumps({"items": [pod, pod]}) + "\nthe log\n\n"
    why = pods.reasons(pods.parse(said))
    assert why == [reason]
    found = pods.mend(why, "g", "k", REGISTRY)
    assert mend in found
    assert bool(found) == bool(mend)
    assert pods.rest(said) == ["the log"]


def test_what_is_no_object() -> None:
    assert pods.parse("error: no such thing\n") == {}
    assert pods.rest("one\n\ntwo") == ["one", "two"]
    assert pods.last("one\nerror: two\n\n") == "two"
    assert pods.last("") == "it said nothing"
