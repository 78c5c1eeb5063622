"""An exactly affine estimator as coefficients and an intercept: all that serving it takes.

A linear regressor of scikit-learn, or a Pipeline of scalers that ends in one, is a single affine
function of its columns. Composing it here leaves one product of a matrix and a vector to serve.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.contract import Description
from scripts.packaging.ways import CannotConvert

if TYPE_CHECKING:
    import numpy.typing as npt
    from sklearn.base import BaseEstimator

    Numbers = npt.NDArray[np.float64]


def compose(estimator: BaseEstimator, description: Description) -> bytes:
    """The estimator as `linear.json`: {"coefficients": [k numbers], "intercept": number}.

    Rows X of shape (n, k) are predicted as X @ coefficients + intercept. Raises CannotConvert for
    an estimator that is anything else, and for columns that are no plain numbers.
    """
    columns = description.columns
    if description.kind != "regressor":
        raise CannotConvert("it is a classifier")
    if other := next((each.name for each in columns if each.type != "number"), None):
        raise CannotConvert(f"column {other} is not a number")
    if other := next((each.name for each in columns if each.nullable), None):
        raise CannotConvert(f"column {other} may be missing")
    *scalers, final = _steps(estimator)
    scale, shift = np.ones(len(columns)), np.zeros(len(columns))
    for step in scalers:
        factor, offset = _scaling(step, len(columns))
        scale, shift = scale * factor, shift * factor + offset
    weights, intercept = _linear(final, len(columns))
    # Exact sums: the order of additions, which differs between machines, must not show.
    total = math.fsum([intercept, *(shift * weights)])
    content = {"coefficients": (scale * weights).tolist(), "intercept": total}
    return (json.dumps(content, allow_nan=False) + "\n").encode()


def _steps(estimator: Any) -> Iterator[Any]:
    from sklearn.pipeline import Pipeline

    # A subclass may do anything between its steps.
    if type(estimator) is not Pipeline:
        yield estimator
        return
    for _, step in estimator.steps:
        if step is not None and not (isinstance(step, str) and step == "passthrough"):
            yield from _steps(step)


def _scaling(step: Any, width: int) -> tuple[Numbers, Numbers]:
    """The factors and offsets, each of shape (width,), that a scaler's transform amounts to."""
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    one, none = np.ones(width), np.zeros(width)
    transform = getattr(type(step), "transform", None)
    if getattr(step, "clip", False):
        raise CannotConvert(f"{type(step).__name__} clips")
    if transform is StandardScaler.transform:
        scale = step.scale_ if step.with_std else one
        return 1 / scale, -(step.mean_ if step.with_mean else none) / scale
    if transform is RobustScaler.transform:
        scale = step.scale_ if step.with_scaling else one
        return 1 / scale, -(step.center_ if step.with_centering else none) / scale
    if transform is MinMaxScaler.transform:
        return step.scale_, step.min_
    if transform is MaxAbsScaler.transform:
        return 1 / step.scale_, none
    raise CannotConvert(f"{type(step).__name__} is none of scikit-learn's affine scalers")


def _linear(final: Any, width: int) -> tuple[Numbers, float]:
    """Weights of shape (width,) and intercept of a linear regressor."""
    name = type(final).__name__
    # `_decision_function` of scikit-learn's linear regressors is X @ coef_.T + intercept_, and
    # their `predict` is no more than that. The generalized linear models, which have a link, have no such method.
    for method in ("predict", "_decision_function"):
        where = getattr(getattr(type(final), method, None), "__module__", "")
        if not where.startswith("sklearn.linear_model."):
            raise CannotConvert(f"{name} is not one of scikit-learn's linear regressors")
    weights = np.asarray(final.coef_, dtype=np.float64)
    intercept = np.asarray(final.intercept_, dtype=np.float64)
    if weights.size != width or weights.ndim > 2 or intercept.size != 1:
        raise CannotConvert(f"{name} has coefficients of shape {weights.shape}")
    if not (np.isfinite(weights).all() and np.isfinite(intercept).all()):
        raise CannotConvert(f"{name} has coefficients that are no finite numbers")
    return weights.reshape(width), float(intercept.reshape(()))
