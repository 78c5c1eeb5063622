"""What is served: the model room's own model, trained here, as each contestant takes it."""

from __future__ import annotations

import compileall
import json
import logging
import py_compile
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import console
from scripts.contract import Description, load_model_room
from scripts.errors import SlipwayError
from scripts.packaging.bundle import Bundle, Bundles
from scripts.packaging.package import package
from scripts.settings import Settings
from scripts.train import describe_model, fit

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator

#: Of an answer to what the estimator predicts; float32 models round to seven digits.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Rows:
    """Rows to send, their columns, and what the estimator itself predicts for them."""

    columns: list[str]
    rows: list[list[Any]]
    expected: list[Any]

    def __len__(self) -> int:
        return len(self.rows)

    def problem(self, predictions: Sequence[Any]) -> str | None:
        """What is wrong with these predictions, or None."""
        if len(predictions) != len(self.expected):
            return f"{len(predictions)} predictions for {len(self.expected)} rows"
        for number, (given, right) in enumerate(zip(predictions, self.expected, strict=True)):
            same = (
                abs(given - right) <= _TOLERANCE * max(1.0, abs(right))
                if isinstance(right, float) and isinstance(given, int | float)
                else given == right
            )
            if not same:
                return f"row {number + 1} is {given!r}, not {right!r}"
        return None


@dataclass(frozen=True)
class Subject:
    """The trained model: `folder` holds it as scikit-learn's users keep it.

    That is `model.joblib`, and in `mlflow/` MLflow's own format. `bundles` are Slipway's, by runtime.
    """

    description: Description
    folder: Path
    bundles: dict[str, Bundle]
    _estimator: BaseEstimator
    _features: pd.DataFrame

    @property
    def numbers_only(self) -> bool:
        """Whether every column is a number."""
        return all(column.type == "number" for column in self.description.columns)

    def rows(self, count: int) -> Rows:
        """So many rows of the data, over and over."""
        from scripts.packaging.parity import plain_rows

        order = [number % len(self._features) for number in range(count)]
        frame = self._features.iloc[order]
        columns = self.description.columns
        expected = self._estimator.predict(frame).tolist()
        return Rows([column.name for column in columns], plain_rows(frame, columns), expected)


def make_subject(root: Path, settings: Settings, folder: Path) -> Subject:
    """Train the model of the model room on its data and put it into `folder` in every form."""
    import joblib

    from scripts.dataset import data_path, read_frame, split
    from scripts.trained import save_trained

    room = load_model_room()
    frame = read_frame(data_path(root, settings.require("DATA_PATH")), room)
    rows, holdout = split(frame, room, settings.HOLDOUT_FRACTION)
    estimator = fit(room, room.parameters, rows)
    description = describe_model(room, estimator, room.parameters, rows, settings.HOLDOUT_FRACTION)
    features = frame[room.features].dropna()
    if features.empty:
        raise SlipwayError(
            "no row of the data is without a missing value, and peers take no others"
        )

    models = folder / "models"
    shutil.rmtree(models, ignore_errors=True)
    models.mkdir(parents=True)
    joblib.dump(estimator, models / "model.joblib")
    # MLflow warns that a pickle is a pickle: known.
    logging.getLogger("mlflow.sklearn").setLevel(logging.ERROR)
    save_trained(models / "mlflow", estimator, description, features.head(3))
    bundles = Bundles(root, folder / "bundles")
    identity = {"name": settings.require("MODEL_NAME"), "version": 1, "lineage": {}}
    made: dict[str, Bundle] = {}
    with bundles.locked(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for runtime in ("auto", "onnx"):
            try:
                bundle = package(
                    bundles, runtime, runtime, identity, estimator, description, holdout
                )
            except SlipwayError as error:
                console.warning(f"RUNTIME={runtime} is left out: {error.message}")
                continue
            made.setdefault(bundle.model["runtime"], bundle)
            _compile(bundle.path)
    if not made:
        raise SlipwayError("the model cannot be packaged, so there is nothing to measure")
    return Subject(description, models, made, estimator, features)


def _compile(bundle: Path) -> None:
    """As the image is built: Python need not compile the service at every start."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(bundle / "scoring", quiet=1, invalidation_mode=mode)


def request_of(rows: Rows) -> bytes:
    """The request body that Slipway and the plain `score.py` take."""
    return json.dumps({"data": rows.rows}).encode()
