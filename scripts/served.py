"""The model that serves now, as its bundle describes it: where `smoke` and `load` have their sample from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.errors import SlipwayError, UsageError
from scripts.platforms.base import Deployment, Service, serving


def served_model(root: Path, service: Service) -> tuple[Deployment, dict[str, Any]]:
    """The serving deployment and the `model.json` of the bundle it was made from.

    After a rollback that is not the last bundle made. UsageError if nothing is deployed;
    SlipwayError if the bundle is gone.
    """
    deployment = serving(service)
    if deployment is None:
        raise UsageError("nothing is deployed", "run `make deploy` first")
    path = root / "build" / "bundles" / deployment.inputs / "model" / "model.json"
    try:
        model: dict[str, Any] = json.loads(path.read_text("utf-8"))
        model["sample"]["request"]["data"], model["sample"]["result"]
    except FileNotFoundError:
        raise SlipwayError(
            f"the bundle of deployment {deployment.number} ({path.relative_to(root)}) is gone",
            "run `make image deploy FORCE=1` to package and deploy the champion again",
        ) from None
    except (ValueError, KeyError, TypeError):
        raise SlipwayError(
            f"{path.relative_to(root)} is not a packaged model",
            "run `make image deploy FORCE=1` to package and deploy the champion again",
        ) from None
    return deployment, model
