"""A trained model as a folder: MLflow's scikit-learn format, and beside it what describes the model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.contract import Description
from scripts.errors import SlipwayError

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator

DESCRIPTION = "slipway.json"


def save_trained(
    folder: Path, estimator: BaseEstimator, description: Description, example: pd.DataFrame
) -> None:
    """Write the model to `folder`, which must not exist; `example` is a few rows of features."""
    import cloudpickle
    import mlflow.sklearn
    from mlflow.models import infer_signature

    import model

    # Classes of the model room go into the file, so that a champion stays what it was trained as
    # when their code changes.
    cloudpickle.register_pickle_by_value(model)
    try:
        with warnings.catch_warnings():
            # MLflow warns that integers cannot be missing and that a pickle is a pickle: both known.
            warnings.simplefilter("ignore")
            mlflow.sklearn.save_model(
                estimator,
                folder,
                signature=infer_signature(example, estimator.predict(example)),
                serialization_format="cloudpickle",
                # Given, because MLflow would otherwise start a process to find them out.
                pip_requirements=["scikit-learn", "pandas", "cloudpickle"],
            )
    finally:
        cloudpickle.unregister_pickle_by_value(model)
    text = json.dumps(description.to_json(), indent=2, default=_plain)
    (folder / DESCRIPTION).write_text(text + "\n", "utf-8")


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} cannot stand in {DESCRIPTION}")


def load_description(folder: Path) -> Description:
    """What describes the model in `folder`; SlipwayError if it cannot be read."""
    try:
        return Description.from_json(json.loads((folder / DESCRIPTION).read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SlipwayError(
            f"the model in {folder} has no readable {DESCRIPTION}: {error}"
        ) from error


def load_trained(folder: Path) -> tuple[BaseEstimator, Description]:
    """The estimator and its description; SlipwayError if either cannot be loaded.

    This unpickles: only load what our own registry holds.
    """
    import mlflow.sklearn

    description = load_description(folder)
    try:
        return mlflow.sklearn.load_model(str(folder)), description
    except Exception as error:  # unpickling runs the user's own code
        raise SlipwayError(
            f"the model in {folder} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
