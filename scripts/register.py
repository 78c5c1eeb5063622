"""`make register`: a promoted candidate becomes the next version, once, with its lineage."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from scripts.errors import UsageError
from scripts.platforms.base import ModelVersion
from scripts.verb import Context, Result, run_verb


def lineage_tags(train: dict[str, Any], evaluate: dict[str, Any]) -> dict[str, str]:
    """The tags of the version: text all, so that they can be searched."""
    tags = {
        "experiment_name": train["experiment"],
        "run_id": train["run_id"],
        "BuildId": train["build_id"],
        "BuildUri": train["build_uri"],
        "git_commit": train["git"]["commit"],
        "git_dirty": train["git"]["dirty"],
        "data_sha256": train["data_sha256"],
        "lock_sha256": train["lock_sha256"],
        "parameters": json.dumps(train["parameters"]),
        "metrics": json.dumps(evaluate["candidate"]["metrics"]),
        "decision": evaluate["decision"],
    }
    return {name: str(value) for name, value in tags.items() if value is not None}


def run(context: Context) -> Result:
    """Register the candidate if it was promoted; UsageError if the champion has changed since."""
    evaluate = context.records.read("evaluate")
    name = context.settings.require("MODEL_NAME")
    tracking = context.platform.tracking
    run_id = evaluate["candidate"]["run_id"]
    if evaluate["decision"] == "kept":
        versions = tracking.versions(name)
        if not versions:
            raise UsageError(
                f"{name} has no version any more", "run `make train FORCE=1`, then `make register`"
            )
        champion = versions[0]
        return Result(
            f"kept: {name} {champion.version} stays champion, nothing registered",
            _record(name, champion.version, champion.run_id, registered=False, tags=champion.tags),
            outcome="kept",
        )
    train = context.records.read("train")
    if train["run_id"] != run_id:
        raise UsageError(
            "the candidate was trained anew since it was judged", "run `make evaluate`"
        )

    def unchanged(versions: Sequence[ModelVersion]) -> None:
        judged = (evaluate["champion"] or {}).get("version")
        if context.settings.CHAMPION == "none" or not versions or versions[0].version == judged:
            return
        raise UsageError(
            f"{name} {versions[0].version} became champion after the candidate was judged",
            "run `make evaluate FORCE=1`, which judges against it",
        )

    version, made = tracking.register(name, run_id, lineage_tags(train, evaluate), unchanged)
    said = "registered as" if made else "is already"
    return Result(
        f"run {run_id} {said} {name} {version.version}",
        _record(name, version.version, run_id, registered=True, tags=version.tags),
    )


def _record(name: str, version: int, run_id: str, *, registered: bool, tags: Any) -> dict[str, Any]:
    return {
        "model_name": name,
        "version": version,
        "run_id": run_id,
        "registered": registered,
        "tags": dict(tags),
    }


def main() -> int:
    return run_verb("register", run)


if __name__ == "__main__":
    sys.exit(main())
