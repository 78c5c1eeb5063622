"""How a model is measured and when it is better: the figures and the comparison of the gate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scripts.contract import ModelRoom
from scripts.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator


def measure(room: ModelRoom, estimator: BaseEstimator, rows: pd.DataFrame) -> dict[str, float]:
    """The model room's metrics of `estimator` on `rows`; UsageError if one is no finite number."""
    try:
        found = dict(room.evaluate(estimator, rows[room.features], rows[room.target]))
        metrics = {str(name): float(value) for name, value in found.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"evaluate in model/estimator.py failed: {type(error).__name__}: {error}",
            "it should return metrics by name, each a number",
        ) from error
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UsageError(
                f"evaluate in model/estimator.py gives {name}={value}",
                "every metric should be a finite number; is the holdout too small for it?",
            )
    if room.primary_metric not in metrics:
        raise UsageError(
            f"evaluate in model/estimator.py gives {', '.join(metrics) or 'no metric'}, "
            f"but PRIMARY_METRIC is {room.primary_metric!r}",
            "let evaluate give it, or correct PRIMARY_METRIC",
        )
    return metrics


def gain(candidate: float, other: float, *, greater_is_better: bool) -> float:
    """By how much the candidate is better, in the metric's own unit; negative if it is worse."""
    return candidate - other if greater_is_better else other - candidate
