"""The model that serves now, as its bundle or its image describes it: `smoke` and `load` ask for its sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.errors import SlipwayError, UsageError
from scripts.platforms.base import Deployment, Service, serving


def served_model(root: Path, service: Service) -> tuple[Deployment, dict[str, Any]]:
    """The serving deployment and the `model.json` of the bundle it was made from.

    After a rollback that is not the last bundle made. Where the bundle is gone, or was made on another
    machine, the deployed image has it too. UsageError if nothing is deployed; SlipwayError if neither
    is there.
    """
    deployment = serving(service)
    if deployment is None:
        raise UsageError("nothing is deployed", "run `make deploy` first")
    path = root / "build" / "bundles" / deployment.inputs / "model" / "model.json"
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        found = service.described(deployment)
        if found is None:
            raise SlipwayError(
                f"the bundle of deployment {deployment.number} ({path.relative_to(root)}) is gone",
                "run `make image deploy FORCE=1` to package and deploy the champion again",
            ) from None
        text = found
    try:
        model: dict[str, Any] = json.loads(text)
        model["sample"]["request"]["data"], model["sample"]["result"]
    except (ValueError, KeyError, TypeError):
        raise SlipwayError(
            f"{path.relative_to(root)} is not a packaged model",
            "run `make image deploy FORCE=1` to package and deploy the champion again",
        ) from None
    return deployment, model
