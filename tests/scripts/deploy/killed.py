"""A deployer that is killed at a point of its work: killed.py KIND ROOT PORT RELEASE POINT.

POINT names a function, `module:Class.function`; SIGKILL comes when it is called, or with a `+`
at its end when it is done.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from scripts.platforms.base import Image, Release
from scripts.settings import Settings


def arm(point: str) -> None:
    """Replace the function with one that ends this process."""
    module, _, name = point.rstrip("+").partition(":")
    holder: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for each in path:
        holder = getattr(holder, each)
    function = getattr(holder, last)

    def killed(*arguments: Any, **options: Any) -> Any:
        if point.endswith("+"):
            function(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(holder, last, killed)


def main() -> None:
    kind, root, port, text, point = sys.argv[1:]
    found = json.loads(text)
    image = Image(**found["image"]) if found["image"] else None
    release = Release(**{**found, "bundle": Path(found["bundle"]), "image": image})
    sample = json.loads((release.bundle / "model" / "model.json").read_text())["sample"]
    settings = Settings(SCORING_PORT=int(port), GRACE_SECONDS=3)
    service: Any
    if kind == "container":
        from scripts.platforms.local.containers import ContainerService

        service = ContainerService(Path(root), settings)
    else:
        from scripts.platforms.local.processes import ProcessService

        service = ProcessService(Path(root), settings)
    arm(point)
    service.deploy(release, sample)


if __name__ == "__main__":
    main()
