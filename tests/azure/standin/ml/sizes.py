"""The sizes a cluster's nodes may have, and how many cores of each family a subscription gets."""

from __future__ import annotations

from tests.azure.standin.messages import Json, Request
from tests.azure.standin.ml.workspace import TYPE, Plane
from tests.azure.standin.routes import ARM
from tests.azure.standin.world import SUBSCRIPTION, World

SOURCE = "REST specification machineLearningServices.json, virtual machine sizes and usages"
VERSIONS = ("2018-11-19", "2020-02-02", "2022-05-01", "2023-04-01", "2024-04-01", "2025-06-01")
NO_QUOTA = "no quota for the cluster"
#: Sizes a cluster may have: family, cores, gigabytes of memory.
SIZES = {
    "STANDARD_D1_V2": ("standardDv2Family", 1, 3.5),
    "STANDARD_D2_V2": ("standardDv2Family", 2, 7),
    "STANDARD_D3_V2": ("standardDv2Family", 4, 14),
    "STANDARD_D4_V2": ("standardDv2Family", 8, 28),
    "STANDARD_DS1_V2": ("standardDSv2Family", 1, 3.5),
    "STANDARD_DS2_V2": ("standardDSv2Family", 2, 7),
    "STANDARD_DS3_V2": ("standardDSv2Family", 4, 14),
    "STANDARD_DS4_V2": ("standardDSv2Family", 8, 28),
    "STANDARD_DS11_V2": ("standardDSv2Family", 2, 14),
    "STANDARD_D2S_V3": ("standardDSv3Family", 2, 8),
    "STANDARD_D4S_V3": ("standardDSv3Family", 4, 16),
    "STANDARD_E4S_V3": ("standardESv3Family", 4, 32),
    "STANDARD_F4S_V2": ("standardFSv2Family", 4, 8),
}
#: Cores a subscription may have of each family, in each region.
QUOTA = 100


def add(plane: Plane) -> None:
    parts = plane.parts
    plane.world.faults.declare(NO_QUOTA, "a new cluster gets no nodes: the quota is 0")
    at = "/subscriptions/{s}/providers/Microsoft.MachineLearningServices/locations/{where}"

    @parts.routes.add(ARM, "GET", f"{at}/vmSizes", source=SOURCE, versions=VERSIONS)
    def sizes(world: World, request: Request, s: str, where: str) -> Json:
        value = [
            {
                "name": name,
                "family": family,
                "vCPUs": cores,
                "gpus": 0,
                "osVhdSizeMB": 1047552,
                "maxResourceVolumeMB": cores * 51200,
                "memoryGB": memory,
                "lowPriorityCapable": True,
                "premiumIO": "S" in name.split("_")[1],
                "supportedComputeTypes": ["AmlCompute", "ComputeInstance"],
            }
            for name, (family, cores, memory) in SIZES.items()
        ]
        return {"value": value, "amlCompute": value}

    @parts.routes.add(ARM, "GET", f"{at}/usages", source=SOURCE, versions=VERSIONS)
    def usages(world: World, request: Request, s: str, where: str) -> Json:
        families = sorted({family for family, _, _ in SIZES.values()})
        most = 0 if world.faults.has(NO_QUOTA) else QUOTA
        kinds = {"dedicatedCores": most, "lowPriorityCores": -1}
        return {
            "value": [
                _usage("TotalDedicatedCores", "totalDedicatedCores", 10 * QUOTA),
                _usage("TotalLowPriorityCores", "totalLowPriorityCores", most),
                *(
                    _usage(family, f"vmFamily/{kind}", limit)
                    for family in families
                    for kind, limit in kinds.items()
                ),
            ]
        }


def _usage(name: str, kind: str, limit: int) -> Json:
    """A quota; as people have seen it, for the names of the specification's example are others."""
    return {
        "id": f"/subscriptions/{SUBSCRIPTION}/usages/{name}",
        "type": f"{TYPE.partition('/')[0]}/{kind}/usages",
        "unit": "Count",
        "currentValue": 0,
        "limit": limit,
        "name": {"value": name, "localizedValue": name},
    }
