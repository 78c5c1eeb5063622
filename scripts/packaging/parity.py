"""The proof that the packaged model predicts what the trained estimator does.

The packaged model is asked through the code that serves, JSON in and values out; the estimator
gets the same rows as a DataFrame. A difference is, for a regressor, the greatest one in units of
the standard deviation of the estimator's own predictions on the holdout; for a classifier the
greatest between two probabilities, while every label must be equal.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring.contract import load_contract
from scoring.errors import RequestError, StartError
from scoring.runtime import load_runtime
from scoring.score import Scorer
from scripts.contract import Column, Description
from scripts.packaging.ways import reason

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from sklearn.base import BaseEstimator

#: The greatest difference that still counts as the same model, by the precision it computes in.
#: float64 leaves room for another order of additions, float32 for rounding to seven digits.
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "object": 1e-9}

#: Rows a request: bounds the memory a large holdout takes as JSON.
CHUNK = 10_000

#: Stands in no data set.
UNSEEN = "\u2047 unseen category"

Row = list[Any]


class NotProven(Exception):
    """The packaged model does not load, refuses rows, or differs; the message says which."""


@dataclass(frozen=True)
class Case:
    """Rows and what the estimator itself predicts for them."""

    name: str
    rows: list[Row]
    values: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class Cases:
    """What to prove. `left_out` says, by case, where the estimator itself has no prediction.

    `scale` is what a regressor's differences are divided by.
    """

    cases: list[Case]
    scale: float
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parity:
    """A proof: the difference of every case, none above `tolerance`."""

    tolerance: float
    cases: dict[str, float]
    left_out: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "max_difference": max(self.cases.values()),
            "tolerance": self.tolerance,
            "cases": self.cases,
        }
        return {**found, "left_out": self.left_out} if self.left_out else found


def plain_rows(frame: pd.DataFrame, columns: Sequence[Column]) -> list[Row]:
    """The frame's rows as a request holds them: numbers, strings, and None where one is missing."""
    lists = [
        [None if missing else float(value) if column.type == "number" else str(value)
         for value, missing in zip(frame[column.name], frame[column.name].isna(), strict=True)]
        for column in columns
    ]  # fmt: skip
    return [list(row) for row in zip(*lists, strict=True)]


def frame_of(rows: Sequence[Row], columns: Sequence[Column]) -> pd.DataFrame:
    """Rows as the DataFrame the estimator was trained on: float64 and object, missing as NaN."""
    import numpy as np
    import pandas as pd

    return pd.DataFrame(
        {
            column.name: pd.Series(
                [np.nan if value is None else value for value in values],
                dtype="float64" if column.type == "number" else "object",
            )
            for column, values in zip(columns, zip(*rows, strict=True), strict=True)
        }
    )


def make_cases(estimator: BaseEstimator, description: Description, holdout: pd.DataFrame) -> Cases:
    """The cases for this model: the holdout, one row, unseen categories and missing values.

    Raises whatever the estimator raises on the holdout itself.
    """
    import numpy as np

    columns = description.columns
    rows = plain_rows(holdout, columns)
    whole = _case("holdout", rows, estimator, columns)
    cases, left_out = [whole], {}
    complete = next((row for row in rows if None not in row), rows[0])
    variants = {
        "single_row": [("", rows[0])],
        "unseen_category": [
            (column.name, _replaced(complete, index, UNSEEN))
            for index, column in enumerate(columns)
            if column.type == "string"
        ],
        "missing_value": [
            (column.name, _replaced(complete, index, None))
            for index, column in enumerate(columns)
            if column.nullable
        ],
    }
    for name, named_rows in variants.items():
        usable = []
        for column_name, row in named_rows:
            try:
                _case(name, [row], estimator, columns)
                usable.append(row)
            except Exception as error:  # the estimator's own refusal, whatever its type
                left_out[f"{name} {column_name}".strip()] = reason(error)
        if usable:
            cases.append(_case(name, usable, estimator, columns))
    scale = 1.0
    if description.kind == "regressor":
        finite = whole.values[np.isfinite(whole.values)]
        spread = float(np.std(finite)) if len(finite) else 0.0
        scale = spread or float(np.max(np.abs(finite), initial=0.0)) or 1.0
    return Cases(cases, scale, left_out)


def _replaced(row: Row, index: int, value: Any) -> Row:
    return [*row[:index], value, *row[index + 1 :]]


def _case(name: str, rows: list[Row], estimator: BaseEstimator, columns: Sequence[Column]) -> Case:
    import numpy as np
    from sklearn.base import is_classifier

    frame = frame_of(rows, columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unseen category is told, which is what is asked here
        values = np.asarray(estimator.predict(frame))
        if is_classifier(estimator):
            shares = estimator.predict_proba(frame) if hasattr(estimator, "predict_proba") else None
            return Case(name, rows, values.ravel(), None if shares is None else np.asarray(shares))
    return Case(name, rows, values.astype(np.float64).ravel(), None)


def load_scorer(model_dir: Path) -> Scorer:
    """The packaged model as the service loads it. Raises NotProven."""
    try:
        contract = load_contract(model_dir)
        return Scorer(contract, load_runtime(contract, model_dir), max_rows=CHUNK)
    except StartError as error:
        # Its own path says nothing to who reads why a way was rejected.
        cause = error.__cause__
        raise NotProven(reason(cause) if cause else str(error)) from error


def prove(scorer: Scorer, cases: Cases, dtype: str) -> Parity:
    """Ask for every case and compare. Raises NotProven at the first that differs."""
    tolerance = TOLERANCES[dtype]
    found = {}
    for case in cases.cases:
        difference = _difference(scorer, case, cases.scale)
        if not difference <= tolerance:
            raise NotProven(f"{case.name} differs by {difference:.2g}, allowed are {tolerance:g}")
        found[case.name] = difference
    return Parity(tolerance, found, cases.left_out)


def _difference(scorer: Scorer, case: Case, scale: float) -> float:
    import numpy as np

    result: list[Any] = []
    shares: list[Any] = []
    for answer in _answers(scorer, case):
        result += answer["result"]
        shares += answer.get("probabilities", [])
    if case.values.dtype == np.float64 and scorer.contract.kind == "regressor":
        return _greatest(case.values, result) / scale
    wrong = sum(own != served for own, served in zip(case.values.tolist(), result, strict=True))
    if wrong:
        raise NotProven(f"{case.name}: {wrong} of {len(result)} labels differ")
    return 0.0 if case.probabilities is None else _greatest(case.probabilities, shares)


def _answers(scorer: Scorer, case: Case) -> Iterator[dict[str, Any]]:
    for start in range(0, len(case.rows), CHUNK):
        request: dict[str, Any] = {"data": case.rows[start : start + CHUNK]}
        if case.probabilities is not None:
            request["probabilities"] = True
        try:
            yield scorer.score(json.dumps(request, allow_nan=False).encode())
        except RequestError as error:
            raise NotProven(f"{case.name}: {error}") from error


def _greatest(own: npt.NDArray[np.float64], served: list[Any]) -> float:
    """The greatest difference; infinite where one of the two is no finite number."""
    import numpy as np

    other = np.asarray(served, dtype=np.float64)  # None becomes NaN
    if own.shape != other.shape:
        return float("inf")
    own_finite, other_finite = np.isfinite(own), np.isfinite(other)
    if (own_finite != other_finite).any():
        return float("inf")
    return float(np.max(np.abs(own[own_finite] - other[own_finite]), initial=0.0))
