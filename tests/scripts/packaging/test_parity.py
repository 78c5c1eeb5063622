"""A model that predicts anything else than its estimator does not pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from scripts.contract import Column, Description
from scripts.errors import SlipwayError
from scripts.packaging import package as packaging
from scripts.packaging.convert import convert
from scripts.packaging.parity import UNSEEN, make_cases, plain_rows
from scripts.packaging.ways import Converted, Way
from tests.scripts.packaging.conftest import HELD_OUT, Packager, describe


def _convert_another(monkeypatch: pytest.MonkeyPatch, other: Any) -> None:
    """Let every file but joblib's hold `other` instead of the estimator that was trained."""

    def wrong(estimator: Any, description: Description, way: Way) -> Converted:
        return convert(estimator if way.runtime == "sklearn" else other, description, way)

    monkeypatch.setattr(packaging, "convert", wrong)


@pytest.mark.parametrize(("factor", "runtime"), [(1 + 1e-7, "onnx"), (1.01, "sklearn")])
def test_a_wrong_regressor_is_rejected(
    factor: float,
    runtime: str,
    frames: dict[str, pd.DataFrame],
    targets: dict[str, Any],
    packager: Packager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = frames["numbers"]
    estimator = Ridge().fit(frame, targets["value"])
    other = Ridge().fit(frame, targets["value"])
    other.coef_ = other.coef_ * factor
    _convert_another(monkeypatch, other)

    bundle = packager(estimator, frame)

    # Off by one part in ten million it is still the same model in float32, not in float64.
    assert bundle.model["runtime"] == runtime
    assert "holdout differs by" in bundle.proof["rejected"][0]["reason"]


def test_a_wrong_classifier_is_rejected(
    frames: dict[str, pd.DataFrame],
    targets: dict[str, Any],
    packager: Packager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = frames["numbers"]
    estimator = make_pipeline(StandardScaler(), LogisticRegression())
    estimator.fit(frame, targets["yes or no"])
    other = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, targets["yes or no"])
    other[-1].intercept_ = other[-1].intercept_ + 0.5
    _convert_another(monkeypatch, other)

    bundle = packager(estimator, frame)

    assert bundle.model["runtime"] == "sklearn"
    assert "labels differ" in bundle.proof["rejected"][1]["reason"]


def test_a_file_that_is_no_model_is_rejected(
    frames: dict[str, pd.DataFrame],
    targets: dict[str, Any],
    packager: Packager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = frames["numbers"]
    monkeypatch.setattr(
        packaging, "convert", lambda *_: Converted("model.onnx", b"not a model", "matrix")
    )

    with pytest.raises(SlipwayError) as raised:
        packager(Ridge().fit(frame, targets["value"]), frame, runtime="onnx")

    assert "InvalidProtobuf" in raised.value.message


def test_every_case_is_proven_where_it_applies(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager
) -> None:
    frame = frames["strings with gaps"]
    numbers, strings = ["x0", "x2", "x3"], ["colour", "size"]
    estimator = make_pipeline(
        ColumnTransformer(
            [
                ("n", StandardScaler(), numbers),
                ("s", OneHotEncoder(handle_unknown="ignore"), strings),
            ]
        ),
        Ridge(),
    ).fit(frame, targets["value"])

    bundle = packager(estimator, frame)

    cases = bundle.proof["parity"]["cases"]
    assert list(cases) == ["holdout", "single_row", "unseen_category", "missing_value"]
    assert bundle.proof["parity"]["max_difference"] == max(cases.values())


def test_what_the_estimator_itself_refuses_is_left_out_and_said(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any]
) -> None:
    frame = frames["mixed"]
    estimator = make_pipeline(
        ColumnTransformer(
            [
                ("n", StandardScaler(), ["x0", "x1"]),
                ("c", OneHotEncoder(handle_unknown="ignore"), ["colour"]),
                ("s", OneHotEncoder(handle_unknown="error"), ["size"]),
            ]
        ),
        Ridge(),
    ).fit(frame, targets["value"])
    described = describe(estimator, frame)
    nullable = tuple(Column(each.name, each.type, True) for each in described.columns)
    description = Description(**{**vars(described), "columns": nullable})

    cases = make_cases(estimator, description, frame[-HELD_OUT:])

    by_name = {case.name: case for case in cases.cases}
    assert [row[4] for row in by_name["unseen_category"].rows] == [UNSEEN]
    assert "unknown categories" in cases.left_out["unseen_category size"]
    assert {name for name in cases.left_out if name.startswith("missing_value")} == {
        "missing_value x0",
        "missing_value x1",
        "missing_value size",
    }


class Sometimes(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts the first column, and nothing at all where that is negative."""

    def fit(self, features: pd.DataFrame, target: Any) -> Sometimes:
        self.fitted_ = True
        return self

    def predict(self, features: pd.DataFrame) -> Any:
        first = features.iloc[:, 0].to_numpy()
        return np.where(first < 0, np.nan, first)


def test_no_prediction_is_null_in_the_answer_too(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any]
) -> None:
    frame = frames["numbers"]
    estimator = Sometimes().fit(frame, targets["value"])

    cases = make_cases(estimator, describe(estimator, frame), frame)

    assert np.isnan(cases.cases[0].values).any()
    assert 0 < cases.scale < 10


def test_an_estimator_that_fails_on_the_holdout_is_named(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager
) -> None:
    frame = frames["numbers with gaps"]
    estimator = Ridge().fit(frames["numbers"], targets["value"])

    with pytest.raises(SlipwayError, match="kiln 3 does not predict the holdout: ValueError"):
        packager(estimator, frame)


def test_rows_are_plain_json(frames: dict[str, pd.DataFrame]) -> None:
    frame = frames["strings with gaps"]
    columns = describe(Ridge(), frame).columns

    rows = plain_rows(frame, columns)

    assert {type(value) for row in rows for value in row} == {float, str, type(None)}
    missing = frame.isna().to_numpy()
    assert [[value is None for value in row] for row in rows] == missing.tolist()
