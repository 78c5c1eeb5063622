"""The estimator, its parameters, and how a trained one is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# `make train PARAMS="alpha=0.1"` overrides these for one run.
PARAMETERS: dict[str, Any] = {"alpha": 1.0}

# The metric the gate compares, one of those `evaluate` gives.
PRIMARY_METRIC = "rmse"
GREATER_IS_BETTER = False


def build_estimator(parameters: Mapping[str, Any]) -> BaseEstimator:
    """An unfitted estimator: any scikit-learn regressor or classifier, or a Pipeline ending in one."""
    return make_pipeline(StandardScaler(), Ridge(**parameters))


def evaluate(
    estimator: BaseEstimator, features: pd.DataFrame, target: pd.Series[Any]
) -> dict[str, float]:
    """The metrics of a fitted estimator on rows it has not seen, in the target's units but for r2."""
    predicted = estimator.predict(features)
    return {
        "rmse": root_mean_squared_error(target, predicted),
        "mae": mean_absolute_error(target, predicted),
        "r2": r2_score(target, predicted),
    }
