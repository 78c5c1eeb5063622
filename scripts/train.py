"""`make train`: fit the candidate on the training rows and log the run.

`PARAMS="alpha=0.1"` overrides the model room's parameters for this one call.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import console
from scripts.contract import Description, ModelRoom, load_model_room
from scripts.errors import UsageError
from scripts.judge import measure
from scripts.lineage import lineage
from scripts.verb import Context, Result, run_verb

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator


def parse_parameters(text: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`name=value` pairs over the defaults; values are JSON where they read as JSON, else text."""
    parameters = dict(defaults)
    try:
        pairs = shlex.split(text)
    except ValueError as error:
        raise UsageError(
            f"PARAMS={text}: {error}", 'write PARAMS="name=value name=value"'
        ) from None
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(
                f"PARAMS={text}: {pair!r} is not name=value", 'write PARAMS="name=value name=value"'
            )
        if name not in defaults:
            raise UsageError(
                f"PARAMS={text}: there is no parameter {name!r}",
                f"PARAMETERS in model/estimator.py has {', '.join(defaults) or 'none'}",
            )
        try:
            parameters[name] = json.loads(value)
        except ValueError:
            parameters[name] = value
    try:
        json.dumps(parameters, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the parameters cannot be recorded: {error}",
            "PARAMS and PARAMETERS hold finite numbers, text, true, false and null; "
            "make other objects of them in build_estimator",
        ) from None
    return parameters


def fit(room: ModelRoom, parameters: Mapping[str, Any], rows: pd.DataFrame) -> BaseEstimator:
    """The estimator fitted on `rows`; UsageError if it refuses its parameters or the data."""
    shown = " ".join(f"{name}={value}" for name, value in parameters.items())
    try:
        estimator = room.build_estimator(parameters)
        estimator.fit(rows[room.features], rows[room.target])
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the estimator refuses {shown or 'its data'}: {str(error).strip().splitlines()[0]}",
            "correct PARAMS, or PARAMETERS and build_estimator in model/estimator.py",
        ) from error
    return estimator


def describe_model(
    room: ModelRoom,
    estimator: BaseEstimator,
    parameters: Mapping[str, Any],
    rows: pd.DataFrame,
    fraction: float,
) -> Description:
    """What is kept beside the trained model."""
    from sklearn.base import is_classifier

    from scripts.dataset import describe

    classifier = is_classifier(estimator)
    return Description(
        kind="classifier" if classifier else "regressor",
        target=room.target,
        id_column=room.id_column,
        columns=room.columns,
        classes=tuple(estimator.classes_.tolist()) if classifier else None,
        primary_metric=room.primary_metric,
        greater_is_better=room.greater_is_better,
        parameters=dict(parameters),
        holdout_fraction=fraction,
        statistics={
            column["name"]: column for column in describe(rows, room) if column["role"] == "feature"
        },
    )


def run(context: Context) -> Result:
    """Have the candidate fitted where the platform fits candidates."""
    return context.platform.training.train(context, fit_candidate)


def fit_candidate(context: Context) -> Result:
    """Train, judge, plot and log the candidate, in this process."""
    from scripts.dataset import data_path, file_sha256, read_frame, split
    from scripts.plots import draw_plots
    from scripts.trained import save_trained

    settings, data = context.settings, context.records.read("data")
    room = load_model_room()
    parameters = parse_parameters(context.call.get("PARAMS", ""), room.parameters)
    path = data_path(context.root, settings.require("DATA_PATH"))
    if file_sha256(path) != data["sha256"]:
        raise UsageError(f"{path.name} has changed since `make data`", "run `make data` again")
    rows, holdout = split(read_frame(path, room), room, settings.HOLDOUT_FRACTION)

    console.step(f"fitting on {len(rows)} rows")
    estimator = fit(room, parameters, rows)
    metrics = {
        part: measure(room, estimator, frame)
        for part, frame in (("train", rows), ("holdout", holdout))
    }
    description = describe_model(room, estimator, parameters, rows, settings.HOLDOUT_FRACTION)
    plots = context.records.folder / "plots"
    drawn = draw_plots(
        plots, estimator, holdout[room.features], holdout[room.target], description.kind
    )

    made_with = lineage(context.root, settings)
    experiment = settings.EXPERIMENT_NAME or settings.require("MODEL_NAME")
    tracking = context.platform.tracking
    console.step(f"logging the run to experiment {experiment}")
    tags = {
        "data_sha256": data["sha256"],
        "lock_sha256": made_with["lock_sha256"],
        "git_commit": made_with["git"]["commit"],
        "git_dirty": made_with["git"]["dirty"],
        "BuildId": made_with["build_id"],
        "BuildUri": made_with["build_uri"],
    }
    run_id = tracking.start_run(
        experiment, {name: str(value) for name, value in tags.items() if value is not None}
    )
    try:
        tracking.log(
            run_id,
            parameters=parameters,
            metrics={f"{part}_{k}": v for part, found in metrics.items() for k, v in found.items()},
        )
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            save_trained(folder, estimator, description, holdout[room.features].head())
            tracking.log_folder(run_id, folder, "model")
        tracking.log_folder(run_id, plots, "plots")
    except BaseException:
        tracking.finish_run(run_id, succeeded=False)
        raise
    tracking.finish_run(run_id, succeeded=True)

    primary = metrics["holdout"][room.primary_metric]
    return Result(
        f"run {run_id}: holdout {room.primary_metric} {primary:.4g}",
        {
            "run_id": run_id,
            "experiment": experiment,
            "parameters": parameters,
            "metrics": metrics,
            "primary_metric": room.primary_metric,
            "greater_is_better": room.greater_is_better,
            "kind": description.kind,
            "target": room.target,
            "columns": room.features,
            "data_sha256": data["sha256"],
            **made_with,
            "plots": [context.relative(plot) for plot in drawn],
        },
    )


def main() -> int:
    return run_verb("train", run)


if __name__ == "__main__":
    sys.exit(main())
