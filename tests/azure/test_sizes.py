"""What `doctor` tells of a cluster's nodes: az alone is played here."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.checks.finding import Finding
from scripts.platforms.azure import sizes
from scripts.platforms.azure.az import Az
from scripts.settings import Settings
from tests.azure.standin.world import SUBSCRIPTION

pytestmark = pytest.mark.azure

FAMILY = "standardDSv2Family"


def usage(name: str, kind: str, limit: int | None) -> dict[str, Any]:
    """A quota as Azure lists it; where it knows none the limit may be missing."""
    kinds = f"Microsoft.MachineLearningServices/{kind}/usages"
    listed = {"type": kinds, "currentValue": None, "name": {"value": name}}
    return listed if limit is None else {**listed, "limit": limit}


def told(usages: list[dict[str, Any]], **settings: Any) -> list[str]:
    """What is wrong for nodes of two cores."""

    class Region(Az):
        def __call__(self, *arguments: str, **_: Any) -> Any:
            if any("/vmSizes?" in each for each in arguments):
                return {"value": [{"name": "Standard_DS2_v2", "family": FAMILY, "vCPUs": 2}]}
            return {"value": usages}

    given = {
        "LOCATION": "centralus",
        "SUBSCRIPTION_ID": SUBSCRIPTION,
        "AML_CLUSTER_PRIORITY": "dedicated",
        **settings,
    }
    values = Settings.model_validate(given)
    found: list[Finding] = sizes.findings(values, Region(values))
    return [each.text for each in found if each.level == "problem"]


def test_a_quota_without_room_for_the_nodes_is_told() -> None:
    none = [usage(FAMILY, "vmFamily/dedicatedCores", 0)]
    (said,) = told(none)
    assert said == (
        "standardDSv2Family is 0 in centralus, and 1 x Standard_DS2_v2 (dedicated) needs 2 cores"
    )
    total = [usage("TotalDedicatedCores", "totalDedicatedCores", 5)]
    assert told(total, AML_CLUSTER_MIN_NODES=2) == []
    (said,) = told(total, AML_CLUSTER_MIN_NODES=3)
    assert "TotalDedicatedCores is 5" in said
    assert "needs 6 cores" in said


def test_each_priority_has_a_quota_of_its_own() -> None:
    some = [
        usage(FAMILY, "vmFamily/dedicatedCores", 0),
        usage(FAMILY, "vmFamily/lowPriorityCores", -1),
        usage("standardNCFamily", "vmFamily/lowPriorityCores", 0),
    ]
    assert told(some, AML_CLUSTER_PRIORITY="lowpriority") == []
    none = [*some, usage("TotalLowPriorityCores", "totalLowPriorityCores", 0)]
    (said,) = told(none, AML_CLUSTER_PRIORITY="lowpriority")
    assert said.startswith("TotalLowPriorityCores is 0")


def test_what_azure_does_not_tell_is_no_problem() -> None:
    assert told([]) == []
    assert told([usage(FAMILY, "vmFamily/dedicatedCores", None)]) == []
