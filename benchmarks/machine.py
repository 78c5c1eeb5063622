"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from scripts.errors import UsageError


def two_cores() -> tuple[int, int]:
    """A core for the servers and one for the load. Raises UsageError if there are not two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UsageError(
            f"the benchmark needs two cores, and may use {len(cores)}: server and load have one each",
            "give this process, container or machine a second one",
        )
    return cores[0], cores[-1]


def machine() -> dict[str, Any]:
    """The processor, its cores, the kernel, and how busy the machine was, as JSON holds it."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
