"""`make evaluate`: the gate. Candidate and champion are measured on the same holdout, now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from scripts import console
from scripts.contract import Description, ModelRoom, load_model_room
from scripts.errors import Refused, SlipwayError, UsageError
from scripts.judge import gain, measure
from scripts.platforms.base import ModelVersion, Tracking
from scripts.verb import Context, Result, run_verb

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator


def find_champion(tracking: Tracking, name: str, run_id: str) -> ModelVersion | None:
    """The version the candidate has to beat: the newest, or the one before the candidate's own.

    None if there is none, or if the candidate was registered as a first model that started anew:
    evaluating a candidate again after it was registered comes to the same decision.
    """
    versions = tracking.versions(name)
    own = next((item for item in versions if item.run_id == run_id), None)
    if own is None:
        return versions[0] if versions else None
    if own.tags.get("decision") == "first":
        return None
    return next((item for item in versions if item.version < own.version), None)


def load_champion(
    tracking: Tracking, champion: ModelVersion, room: ModelRoom
) -> tuple[BaseEstimator, Description]:
    """The champion, comparable with the candidate; UsageError if it is not."""
    from scripts.trained import load_trained

    mend = "set another MODEL_NAME, or CHAMPION=none to let the candidate start anew"
    try:
        estimator, description = load_trained(tracking.download(champion.run_id, "model"))
    except SlipwayError as error:
        raise UsageError(
            f"champion {champion.name} {champion.version} cannot be judged: {error.message}", mend
        ) from error
    for what, theirs, ours in (
        ("target", description.target, room.target),
        ("metric", description.primary_metric, room.primary_metric),
        ("metric's direction", description.greater_is_better, room.greater_is_better),
        ("columns", description.columns, room.columns),
        ("id column", description.id_column, room.id_column),
    ):
        if theirs != ours:
            raise UsageError(
                f"champion {champion.name} {champion.version} differs from model/ "
                f"in its {what}",
                mend,
            )
    return estimator, description


def run(context: Context) -> Result:
    """Decide between candidate and champion; Refused if a first model does not beat a dummy."""
    from scripts.dataset import data_path, file_sha256, read_frame, split
    from scripts.trained import load_trained

    settings, train = context.settings, context.records.read("train")
    room = load_model_room()
    path = data_path(context.root, settings.require("DATA_PATH"))
    if file_sha256(path) != train["data_sha256"]:
        raise UsageError(f"{path.name} has changed since `make train`", "run `make train` again")
    tracking = context.platform.tracking
    candidate, description = load_trained(tracking.download(train["run_id"], "model"))
    champion = (
        None
        if settings.CHAMPION == "none"
        else find_champion(tracking, settings.require("MODEL_NAME"), train["run_id"])
    )
    fraction, opponent = description.holdout_fraction, None
    if champion is not None:
        opponent, theirs = load_champion(tracking, champion, room)
        # Rows held out from both: neither is judged on rows it learned.
        fraction = min(fraction, theirs.holdout_fraction)
    rows, holdout = split(read_frame(path, room), room, fraction)

    console.step(f"judging on {len(holdout)} rows held out")
    metric = room.primary_metric
    metrics = measure(room, candidate, holdout)
    record: dict[str, Any] = {
        "decision": "first",
        "metric": metric,
        "greater_is_better": room.greater_is_better,
        "candidate": {"run_id": train["run_id"], "value": metrics[metric], "metrics": metrics},
        "champion": None,
        "baseline": None,
        "margin": None,
        "required_margin": settings.GATE_MARGIN,
        "holdout_rows": len(holdout),
        "data_sha256": train["data_sha256"],
    }
    if champion is None or opponent is None:
        record["baseline"] = _baseline(room, description, rows, holdout)
        return _against_dummy(record, room)
    found = measure(room, opponent, holdout)
    record["champion"] = {
        "version": champion.version,
        "run_id": champion.run_id,
        "value": found[metric],
        "metrics": found,
    }
    margin = gain(metrics[metric], found[metric], greater_is_better=room.greater_is_better)
    # A tie is not better, whatever the margin asked for.
    promoted = margin > settings.GATE_MARGIN
    record |= {"decision": "promoted" if promoted else "kept", "margin": margin}
    line = (
        f"{metric} {metrics[metric]:.6g} against {found[metric]:.6g} of champion "
        f"{champion.version} (margin {margin:+.3g}, more than {settings.GATE_MARGIN:g} asked)"
    )
    if promoted:
        return Result(f"promoted: {line}", record)
    return Result(f"kept: {line}", record, outcome="kept")


def _baseline(
    room: ModelRoom, description: Description, rows: pd.DataFrame, holdout: pd.DataFrame
) -> float:
    """The primary metric of an estimator that has learned nothing."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    dummy = DummyClassifier() if description.kind == "classifier" else DummyRegressor()
    dummy.fit(rows[room.features], rows[room.target])
    try:
        return measure(room, dummy, holdout)[room.primary_metric]
    except UsageError as error:
        raise UsageError(
            f"a first model is held against {type(dummy).__name__}, but {error.message}",
            "let evaluate use predict, predict_proba and classes_ only, which every estimator has",
        ) from error


def _against_dummy(record: dict[str, Any], room: ModelRoom) -> Result:
    value, baseline = record["candidate"]["value"], record["baseline"]
    record["margin"] = gain(value, baseline, greater_is_better=room.greater_is_better)
    line = f"{record['metric']} {value:.6g} against {baseline:.6g} of a dummy estimator"
    if record["margin"] <= record["required_margin"]:
        raise Refused(
            f"the first model is no better than a dummy: {line}",
            "look into the data, the features and the parameters",
            figures=record,
        )
    return Result(f"first: {line}", record)


def main() -> int:
    return run_verb("evaluate", run)


if __name__ == "__main__":
    sys.exit(main())
