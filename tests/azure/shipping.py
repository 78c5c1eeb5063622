"""Versions to deploy: trained and packaged on this machine, because only what follows is tested."""

from __future__ import annotations

import subprocess
import sys

from tests.azure.conftest import AzureClone

#: Puts the packaged version into the registry as `make image` does, and writes its record.
SHIP = """
import dataclasses, json
from scripts.platforms.azure import AzurePlatform
from scripts.settings import load_settings
from scripts.verb import clone_root, open_records

root = clone_root()
settings = load_settings(root)
record = json.loads((root / "build" / "local" / "image.json").read_text())
images = AzurePlatform(root, settings).images
reference = f"{images.name(record['model_name'])}:{record['version']}-{record['inputs'][:8]}"
labels = {"slipway.inputs": record["inputs"]}
image = images.find(record["inputs"], reference)
if image is None:
    image = images.build(root / record["bundle"], reference, labels)
record |= {"engine": images.engine, "image": dataclasses.asdict(image)}
open_records(root, settings).write("image", record)
"""


def package(clone: AzureClone, alpha: float) -> None:
    """Make the next version, whatever it is worth."""
    here = {"PLATFORM": "local", "SLIPWAY_ENGINE": "none", "CHAMPION": "none"}
    clone.run("data", **here)
    clone.run("train", **here, PARAMS=f"alpha={alpha}")
    for verb in ("evaluate", "register", "image"):
        clone.run(verb, **here)


def ship(clone: AzureClone) -> str:
    """Push the packaged version; what that printed."""
    done = subprocess.run(
        [sys.executable, "-c", SHIP],
        cwd=clone.path,
        env=clone.environment(),
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
