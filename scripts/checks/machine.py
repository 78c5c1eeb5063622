"""The machine: Python, tools, disk, memory, and a folder to write to."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.checks.finding import Finding, ok, problem
from scripts.settings import Settings

GIB = 1024**3
#: For the virtual environment, bundles and records.
TREE_BYTES = 2 * GIB
#: A run peaks at about 1 GiB: MLflow, scikit-learn and the service together.
LEAST_MEMORY, GOOD_MEMORY = 1 * GIB, 2 * GIB


def python(root: Path, settings: Settings) -> Iterator[Finding]:
    """The version that the locks are made for."""
    version = platform.python_version()
    if sys.version_info[:2] == (3, 11):
        yield ok("python", version)
    else:
        yield problem(
            "python", f"is {version}, the locks are for 3.11", "run `make doctor`, which chooses it"
        )


def tools(root: Path, settings: Settings) -> Iterator[Finding]:
    """make and flock, which hold a whole run together."""
    make = shutil.which("make")
    if make is None:
        yield Finding("note", "make", "is not in here; the Makefile checks the one that reads it")
    else:
        said = subprocess.run([make, "--version"], capture_output=True, text=True, timeout=10)
        found = re.search(r"GNU Make (\d+)(\.\d+)*", said.stdout)
        if found and int(found[1]) >= 4:
            yield ok("make", found[0])
        else:
            yield problem("make", "is not GNU make 4 or newer", "install GNU make 4")
    if shutil.which("flock") or shutil.which("perl"):  # make/lock-fd.sh takes either
        yield ok("flock", "found")
    else:
        yield problem("flock", "is not found", "install it (Debian: util-linux)")


def disk(root: Path, settings: Settings) -> Iterator[Finding]:
    """Room where the tree lies."""
    yield room("disk", root, TREE_BYTES)


def room(what: str, path: Path, needed: int) -> Finding:
    """Whether `needed` bytes are free where `path` is."""
    free = shutil.disk_usage(path).free
    text = f"{free / GIB:.1f} GiB free at {path}"
    if free >= needed:
        return ok(what, text)
    return problem(what, f"{text}, {needed / GIB:.0f} are needed", "make room, or move the clone")


def available_memory() -> int:
    """Bytes that may still be used: what the machine has left, or the container's limit."""
    values = dict(re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text("utf-8")))
    available = int(values["MemAvailable"]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    used = Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        available = min(available, int(text) - int(used.read_text()))
    return available


def memory(root: Path, settings: Settings) -> Iterator[Finding]:
    """Memory a run may take."""
    if not Path("/proc/meminfo").exists():
        yield Finding("note", "memory", "cannot be read on this system")
        return
    available = available_memory()
    text = f"{available / GIB:.1f} GiB available"
    if available < LEAST_MEMORY:
        yield problem("memory", f"{text}, 1 is needed", "end other programs, or give Docker more")
    elif available < GOOD_MEMORY:
        yield Finding("warning", "memory", f"{text}, 2 are good to have")
    else:
        yield ok("memory", text)


def writable(root: Path, settings: Settings) -> Iterator[Finding]:
    """`build/`, where everything made here lies."""
    build = root / "build"
    place = build if build.exists() else root
    foreign = [
        path
        for path in (place, build / "local", build / "mlflow", build / "bundles")
        if path.exists() and not os.access(path, os.W_OK)
    ]
    if foreign:
        names = ", ".join(str(path.relative_to(root)) for path in foreign)
        yield problem(
            "build",
            f"{names} cannot be written",
            f"give it to yourself: sudo chown -R $(id -u) {build}",
        )
    else:
        yield ok("build", f"{build} can be written")
