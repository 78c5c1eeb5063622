"""The pictures of a run: how the candidate does on the holdout."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from sklearn.base import BaseEstimator

INK, ACCENT = "#1f2937", "#2563eb"


def draw_plots(
    folder: Path,
    estimator: BaseEstimator,
    features: pd.DataFrame,
    target: pd.Series[Any],
    kind: str,
) -> list[Path]:
    """Draw into `folder`, which is emptied first, and return the PNG files drawn."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if kind == "classifier":
        return _classifier(folder, estimator, features, target)
    return _regressor(folder, estimator, features, target)


@contextmanager
def _figure(path: Path, title: str) -> Iterator[Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, color=INK, fontsize=11)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    yield axes
    figure.savefig(path, dpi=120)


def _regressor(
    folder: Path, estimator: BaseEstimator, features: pd.DataFrame, target: pd.Series[Any]
) -> list[Path]:
    predicted = estimator.predict(features)
    ends = [min(target.min(), predicted.min()), max(target.max(), predicted.max())]
    against, residuals = folder / "predicted_vs_actual.png", folder / "residuals.png"
    with _figure(against, "Predicted against actual") as axes:
        axes.plot(ends, ends, color=INK, linewidth=1, alpha=0.6)
        axes.scatter(target, predicted, s=18, color=ACCENT, alpha=0.6)
        axes.set_xlabel(f"actual {target.name}")
        axes.set_ylabel(f"predicted {target.name}")
    with _figure(residuals, "Residuals") as axes:
        axes.axhline(0, color=INK, linewidth=1, alpha=0.6)
        axes.scatter(predicted, target - predicted, s=18, color=ACCENT, alpha=0.6)
        axes.set_xlabel(f"predicted {target.name}")
        axes.set_ylabel("actual - predicted")
    return [against, residuals]


def _classifier(
    folder: Path, estimator: BaseEstimator, features: pd.DataFrame, target: pd.Series[Any]
) -> list[Path]:
    from sklearn.metrics import ConfusionMatrixDisplay, RocCurveDisplay

    matrix = folder / "confusion_matrix.png"
    with _figure(matrix, "Confusion matrix") as axes:
        axes.grid(visible=False)
        ConfusionMatrixDisplay.from_predictions(
            target, estimator.predict(features), ax=axes, cmap="Blues", colorbar=False
        )
    score = getattr(estimator, "predict_proba", None)
    if score is None:
        return [matrix]
    roc, classes = folder / "roc.png", estimator.classes_
    probabilities = score(features)
    # Two classes need one curve; more get one each, that class against the rest.
    shown = [1] if len(classes) == 2 else range(len(classes))
    with _figure(roc, "ROC") as axes:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", alpha=0.6)
        for index in shown:
            if 0 < (target == classes[index]).sum() < len(target):
                RocCurveDisplay.from_predictions(
                    target == classes[index],
                    probabilities[:, index],
                    ax=axes,
                    name=str(classes[index]),
                )
    return [matrix, roc]
