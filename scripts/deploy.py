"""`make deploy`: put the packaged version into service without losing a request."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from scripts import console
from scripts.errors import UsageError
from scripts.platforms import connect
from scripts.platforms.base import Deployment, Image, Release, Service, serving, start_again
from scripts.verb import Context, Result, run_verb


def run(context: Context) -> Result:
    """Deploy what the image record names, unless it serves already or was rolled back."""
    release, sample = read_release(context)
    service = connect(context.root, context.settings).service
    forced = bool(context.call.get("FORCE"))
    if not forced and (current := service.current(release)) is not None:
        console.step("the same version with the same settings serves already")
        return Result(message_of(current), record_of(current))
    asked = forced or bool(context.call.get("MODEL_VERSION"))
    if not asked and (rejected := rejected_by_rollback(service, release)) is not None:
        return _keep(service, release, rejected)
    deployment = service.deploy(release, sample)
    return Result(message_of(deployment), record_of(deployment))


def read_release(context: Context) -> tuple[Release, Mapping[str, Any]]:
    """What the image record says is to be deployed, and the sample it must answer."""
    record = context.records.read("image")
    bundle = context.root / record["bundle"]
    try:
        sample = json.loads((bundle / "model" / "model.json").read_text("utf-8"))["sample"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"the bundle {record['bundle']} is missing or damaged",
            "run `make image FORCE=1`, then `make deploy`",
        ) from None
    release = Release(
        model_name=record["model_name"],
        version=record["version"],
        inputs=record["inputs"],
        bundle=bundle,
        image=Image(**record["image"]) if record["image"] else None,
    )
    return release, sample


def rejected_by_rollback(service: Service, release: Release) -> int | None:
    """The version a rollback left behind, if `release` is no newer one; else None."""
    history = service.history()
    if not history or history[0].model_name != release.model_name:
        return None
    rejected = history[0].rejected
    return rejected if rejected is not None and release.version <= rejected else None


def _keep(service: Service, release: Release, rejected: int) -> Result:
    current = serving(service)
    again = "newer one or `make deploy FORCE=1`"
    if current is None:
        raise UsageError(
            f"nothing serves, and version {release.version} is not deployed by itself because"
            f" version {rejected} was rolled back",
            f"`{start_again(service.history())}` serves what served last; FORCE=1 this one",
        )
    return Result(
        f"version {release.version} is not deployed: version {rejected} was rolled back, and"
        f" version {current.version} serves until there is a {again}",
        record_of(current),
        outcome="kept",
    )


def message_of(deployment: Deployment) -> str:
    """The one line that says what serves; the same however it came to serve."""
    return (
        f"{deployment.model_name} version {deployment.version} serves at {deployment.url}"
        f" (deployment {deployment.number})"
    )


def record_of(deployment: Deployment) -> dict[str, Any]:
    """The fields of the deploy record (docs/records.md)."""
    return {
        "deployment": deployment.number,
        "version": deployment.version,
        "model_name": deployment.model_name,
        "kind": deployment.kind,
        "image_id": deployment.image_id,
        "inputs": deployment.inputs,
        "url": deployment.url,
        "inner_url": deployment.inner_url,
        "previous": deployment.previous,
        "rolled_back": deployment.rejected is not None,
    }


def main() -> int:
    return run_verb("deploy", run)


if __name__ == "__main__":
    sys.exit(main())
