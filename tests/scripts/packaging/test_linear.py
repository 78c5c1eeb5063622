"""What is one affine function of its columns becomes coefficients and an intercept; nothing else does."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    HuberRegressor,
    LarsCV,
    LassoCV,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeCV,
    SGDRegressor,
    TheilSenRegressor,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import LinearSVR
from sklearn.utils import all_estimators

from scripts.contract import Column, Description
from scripts.errors import SlipwayError
from scripts.packaging import package as packaging
from scripts.packaging.linear import compose
from scripts.packaging.ways import CannotConvert
from tests.scripts.packaging.conftest import HELD_OUT, Packager, describe


class Clipped(Ridge):  # type: ignore[misc]
    """As linear as Ridge where it is not negative, as on most holdouts it never is."""

    def predict(self, X: Any) -> Any:
        return np.maximum(super().predict(X), 0)


class Shifted(StandardScaler):  # type: ignore[misc]
    def transform(self, X: Any, copy: bool | None = None) -> Any:
        return super().transform(X, copy) ** 2


def _fit(estimator: Any, frame: pd.DataFrame, target: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        return estimator.fit(frame, target)


def _predicted(content: bytes, frame: pd.DataFrame) -> Any:
    found = json.loads(content)
    return frame.to_numpy() @ np.array(found["coefficients"]) + found["intercept"]


LINEAR = {
    "no intercept": LinearRegression(fit_intercept=False),
    "ridge chosen": make_pipeline(StandardScaler(), RidgeCV()),
    "lasso chosen": make_pipeline(StandardScaler(with_mean=False), LassoCV()),
    "elastic net": make_pipeline(StandardScaler(with_std=False), ElasticNet()),
    "bayesian": make_pipeline(MinMaxScaler((-1, 3)), BayesianRidge()),
    "huber": make_pipeline(MaxAbsScaler(), HuberRegressor()),
    "gradient": make_pipeline(RobustScaler(), SGDRegressor(random_state=0)),
    "averaged": make_pipeline(StandardScaler(), SGDRegressor(average=True, random_state=0)),
    "support vectors": make_pipeline(RobustScaler(with_centering=False), LinearSVR()),
    "angles": make_pipeline(RobustScaler(with_scaling=False), LarsCV()),
    "theil-sen": TheilSenRegressor(random_state=0),
    "no scaler": Pipeline([("a", "passthrough"), ("b", None), ("c", Ridge())]),
    "scalers in a row": make_pipeline(
        make_pipeline(MinMaxScaler(), RobustScaler()), StandardScaler(), Ridge()
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_model_is_served_as_coefficients(
    name: str, frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager
) -> None:
    frame = frames["numbers"]
    estimator = _fit(LINEAR[name], frame[:-HELD_OUT], targets["value"][:-HELD_OUT])

    bundle = packager(estimator, frame)

    assert (bundle.model["runtime"], bundle.model["dtype"]) == ("linear", "float64")
    assert (bundle.model["file"], bundle.model["inputs"]) == ("linear.json", "matrix")
    assert bundle.proof["rejected"] == []
    content = (bundle.path / "model" / "linear.json").read_bytes()
    assert set(json.loads(content)) == {"coefficients", "intercept"}
    # Nor does it differ where no row ever was.
    far = frame * 1e6 - 1e9
    assert np.allclose(_predicted(content, far), estimator.predict(far), rtol=1e-9)


def test_a_target_of_one_column_is_one_number(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager
) -> None:
    frame = frames["numbers"]
    estimator = Ridge().fit(frame, targets["value"].reshape(-1, 1))

    assert packager(estimator, frame).model["runtime"] == "linear"


OTHERS = {
    "two targets": (Ridge(), "has coefficients of shape (2, 4)"),
    "clipped": (Clipped(), "Clipped is not one of scikit-learn's linear regressors"),
    "clips": (make_pipeline(MinMaxScaler(clip=True), Ridge()), "MinMaxScaler clips"),
    "own scaler": (make_pipeline(Shifted(), Ridge()), "Shifted is none of"),
    "turned": (make_pipeline(PCA(2), Ridge()), "PCA is none of"),
    "classifier": (LogisticRegression(), "it is a classifier"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_is_refused_in_a_line(
    name: str, frames: dict[str, pd.DataFrame], targets: dict[str, Any]
) -> None:
    frame, (estimator, reason) = frames["numbers"], OTHERS[name]
    target = targets["yes or no" if name == "classifier" else "value"]
    if name == "two targets":
        target = np.column_stack([target, target])
    estimator.fit(frame, target)

    with pytest.raises(CannotConvert) as raised:
        compose(estimator, describe(estimator, frame))

    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (Column("x1", "number", True), "column x1 may be missing"),
        (Column("x1", "string", False), "column x1 is not a number"),
    ],
)
def test_other_columns_are_refused(
    column: Column, reason: str, frames: dict[str, pd.DataFrame], targets: dict[str, Any]
) -> None:
    frame = frames["numbers"]
    estimator = Ridge().fit(frame, targets["value"])
    first, _, *rest = describe(estimator, frame).columns
    description = replace(describe(estimator, frame), columns=(first, column, *rest))

    with pytest.raises(CannotConvert, match=reason):
        compose(estimator, description)


def test_of_all_regressors_of_scikit_learn_none_is_taken_wrongly(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any]
) -> None:
    # Of these features, which are all of one size, and this target every regressor can learn.
    frame = frames["numbers"] / [1, 10, 100, 1000]
    taken = set()
    for name, kind in all_estimators("regressor"):
        try:
            estimator = _fit(kind(), frame, targets["positive"])
            content = compose(estimator, describe(estimator, frame))
        except (
            TypeError,
            ValueError,
            CannotConvert,
        ):  # it is made of others, or wants other targets
            continue
        far = frame * 1e6
        assert np.allclose(_predicted(content, far), estimator.predict(far).ravel(), rtol=1e-9)
        taken.add(name)

    assert {"ARDRegression", "Lars", "QuantileRegressor", "OrthogonalMatchingPursuit"} <= taken
    assert not {"PoissonRegressor", "SVR", "PLSRegression", "RANSACRegressor"} & taken


def test_linear_can_be_demanded(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager
) -> None:
    frame = frames["numbers"]
    estimator = Clipped().fit(frame, targets["value"])

    with pytest.raises(SlipwayError, match="linear float64: Clipped is not") as raised:
        packager(estimator, frame, runtime="linear")

    assert raised.value.mend == "set RUNTIME=auto, which falls back to scikit-learn"
    assert len(raised.value.figures["rejected"]) == 1


@pytest.mark.parametrize("runtime", ["onnx", "sklearn"])
def test_where_another_runtime_is_demanded_linear_is_not_tried(
    runtime: str,
    frames: dict[str, pd.DataFrame],
    targets: dict[str, Any],
    packager: Packager,
) -> None:
    frame = frames["numbers"]

    bundle = packager(Ridge().fit(frame, targets["value"]), frame, runtime=runtime)

    assert bundle.model["runtime"] == runtime
    assert bundle.proof["rejected"] == []


def test_a_model_without_finite_coefficients_is_no_linear_one(
    frames: dict[str, pd.DataFrame],
    targets: dict[str, Any],
    packager: Packager,
) -> None:
    frame = frames["numbers"]
    estimator = Ridge().fit(frame, targets["value"])
    estimator.coef_ = estimator.coef_ * np.array([1, 1, 1, np.inf])

    with pytest.raises(
        SlipwayError, match="linear float64: Ridge has coefficients that are no finite"
    ):
        packager(estimator, frame, runtime="linear")


def test_the_contract_holds_what_the_model_was_trained_on(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager
) -> None:
    frame = frames["numbers"]
    estimator = Ridge().fit(frame, targets["value"])
    found = {"type": "number", "missing": 0, "mean": 1.5, "edges": [1.0], "counts": [2, 3]}
    record = {"name": "x1", "role": "feature", "nullable": False, **found}
    description: Description = replace(
        describe(estimator, frame), statistics={"x1": record, "gone": record}
    )

    bundle = packager(estimator, frame, description=description)

    assert bundle.model["reference"] == {"x1": found}
    assert len(bundle.model["sample"]["result"]) == packaging.SAMPLE_ROWS
