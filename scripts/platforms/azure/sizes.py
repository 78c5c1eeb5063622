"""Whether a cluster gets its nodes: the region offers them, and the quota has room for one.

Azure ML counts cores apart from virtual machines: so many for each family, and so many in all, of each
priority. A limit of -1 is none. Source: REST reference, Virtual Machine Sizes - List, Usages - List.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.checks.finding import Finding, ok, problem
from scripts.platforms.azure import names
from scripts.platforms.azure.az import Az
from scripts.settings import Settings

VERSION = "2025-06-01"
#: What counts the cores of a priority: the name of all families' sum, and the kind of each family's.
COUNTED = {
    "dedicated": ("TotalDedicatedCores", "/dedicatedCores/"),
    "lowpriority": ("TotalLowPriorityCores", "/lowPriorityCores/"),
}


def findings(settings: Settings, az: Az) -> list[Finding]:
    """What AML_COMPUTE_CLUSTER_CPU_SKU meets in LOCATION."""
    size = settings.AML_COMPUTE_CLUSTER_CPU_SKU
    listed = _ask(settings, az, "vmSizes")
    where = f"AML_COMPUTE_CLUSTER_CPU_SKU={size} in {settings.LOCATION}"
    found = next((item for item in listed if str(item["name"]).lower() == size.lower()), None)
    if found is None:
        near = sorted(str(item["name"]) for item in listed if not item.get("gpus"))
        mend = f"set one of {', '.join(near[:6])}, or another LOCATION"
        return [problem("azure sizes", f"{where} is not offered", mend)]
    if settings.AML_CLUSTER_PRIORITY == "lowpriority" and not found.get("lowPriorityCapable", True):
        text = f"{where} is not offered as low priority"
        return [problem("azure sizes", text, "set AML_CLUSTER_PRIORITY=dedicated")]
    cores = int(found.get("vCPUs") or 0)
    return [ok("azure sizes", f"{where} is offered"), *_quota(settings, az, found, cores)]


def _quota(settings: Settings, az: Az, found: Mapping[str, Any], cores: int) -> Iterator[Finding]:
    """Whether as many nodes as the cluster always has, or one, fit into the quota at all."""
    total, kind = COUNTED[settings.AML_CLUSTER_PRIORITY]
    family = str(found.get("family") or "")
    nodes = max(1, settings.AML_CLUSTER_MIN_NODES)
    for item in _ask(settings, az, "usages"):
        name, limit = str(item["name"]["value"]), int(item.get("limit", -1))
        of_family = name.lower() == family.lower() and kind in str(item["type"])
        if 0 <= limit < nodes * cores and (name == total or of_family):
            yield problem(
                "azure quota",
                f"{name} is {limit} in {settings.LOCATION}, and {nodes} x {found['name']} "
                f"({settings.AML_CLUSTER_PRIORITY}) needs {nodes * cores} cores",
                "ask for more in Azure ML studio (Quota), or choose a SKU, priority or region with quota",
            )


def _ask(settings: Settings, az: Az, what: str) -> list[Mapping[str, Any]]:
    """What Azure ML lists of the region."""
    provider = "providers/Microsoft.MachineLearningServices"
    where = f"subscriptions/{settings.SUBSCRIPTION_ID}/{provider}/locations/{settings.LOCATION}"
    url = f"{names.ARM}{where}/{what}?api-version={VERSION}"
    return list(az("rest", "--method", "get", "--url", url)["value"])
