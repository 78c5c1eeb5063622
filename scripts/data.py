"""`make data`: read the data file, hold it against the contract, and record what it holds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from scripts import console
from scripts.contract import load_model_room
from scripts.errors import Refused, SlipwayError
from scripts.verb import Context, Result, run_verb

if TYPE_CHECKING:
    import pandas as pd

    from scripts.contract import ModelRoom


def run(context: Context) -> Result:
    """Validate the data; Refused if it has shifted and `DATA_SHIFT=fail`."""
    from scripts.dataset import data_path, describe, file_sha256, read_frame, split

    settings = context.settings
    room = load_model_room()
    wanted = context.root / settings.require("DATA_PATH")
    if not wanted.exists():
        context.platform.training.restore(context, wanted)
    path = data_path(context.root, settings.require("DATA_PATH"))
    digest = file_sha256(path)
    frame = read_frame(path, room)
    _, holdout = split(frame, room, settings.HOLDOUT_FRACTION)
    shift, shifted = _shift(context, room, frame)
    record = {
        "path": settings.DATA_PATH,
        "format": path.suffix.lower().lstrip("."),
        "sha256": digest,
        "rows": len(frame),
        "target": room.target,
        "id_column": room.id_column,
        "columns": describe(frame, room),
        "holdout": {"fraction": settings.HOLDOUT_FRACTION, "rows": len(holdout)},
        "shift": shift,
    }
    if shifted and settings.DATA_SHIFT == "fail":
        raise Refused(
            f"{path.name} has shifted against the champion's training data: {shifted}",
            "look into the data; DATA_SHIFT=warn lets it pass",
            figures=record,
        )
    if shifted:
        console.warning(f"shifted against the champion's training data: {shifted}")
    return Result(
        f"{path.name}: {len(frame)} rows, {len(room.columns)} features, "
        f"{len(holdout)} rows held out",
        record,
    )


def _shift(context: Context, room: ModelRoom, frame: pd.DataFrame) -> tuple[dict[str, Any], str]:
    """The shift of each feature against the champion's training rows, and a line about the shifted."""
    from scripts.dataset import population_stability
    from scripts.trained import load_description

    nothing: dict[str, Any] = {"against": None, "columns": {}, "shifted": []}
    tracking = context.platform.tracking
    versions = tracking.versions(context.settings.require("MODEL_NAME"))
    if not versions or context.settings.CHAMPION == "none":
        return nothing, ""
    try:
        champion = load_description(tracking.download(versions[0].run_id, "model"))
    except SlipwayError as error:
        # Whether it can be replaced is for `evaluate` to say.
        console.warning(f"no shift against champion {versions[0].version}: {error.message}")
        return nothing, ""
    types = {column.name: column.type for column in room.columns}
    found = {
        name: result
        for name, statistics in champion.statistics.items()
        # A column that is gone or of another type now is for `evaluate` to say.
        if types.get(name) == statistics["type"]
        and (result := population_stability(statistics, frame[name])) is not None
    }
    shifted = [name for name, (_, moved) in found.items() if moved]
    shift = {
        "against": versions[0].version,
        "columns": {name: round(index, 6) for name, (index, _) in found.items()},
        "shifted": shifted,
    }
    return shift, ", ".join(f"{name} (PSI {found[name][0]:.2f})" for name in shifted)


def main() -> int:
    return run_verb("data", run)


if __name__ == "__main__":
    sys.exit(main())
