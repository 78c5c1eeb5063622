"""Model rooms of the tests' own: nothing here knows the sample model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]

REGRESSOR_CONTRACT = """
from pandera.pandas import Check, Column, DataFrameSchema

SCHEMA = DataFrameSchema({
    "girth": Column(float, Check.in_range(0, 100)),
    "height": Column(float, Check.gt(0)),
    "volume": Column(float),
})
TARGET = "volume"
ID_COLUMN = None
"""

REGRESSOR_ESTIMATOR = """
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score

PARAMETERS = {"alpha": 1.0}
PRIMARY_METRIC = "mae"
GREATER_IS_BETTER = False

def build_estimator(parameters):
    return Ridge(**parameters)

def evaluate(estimator, features, target):
    predicted = estimator.predict(features)
    return {"mae": mean_absolute_error(target, predicted), "r2": r2_score(target, predicted)}
"""

CLASSIFIER_CONTRACT = """
from pandera.pandas import Check, Column, DataFrameSchema

SCHEMA = DataFrameSchema({
    "station": Column(str),
    "sky": Column(str, Check.isin(["clear", "cloudy", "fog"]), nullable=True),
    "pressure": Column(float, nullable=True),
    "wind": Column(int, Check.ge(0)),
    "rain": Column(str, Check.isin(["yes", "no"])),
})
TARGET = "rain"
ID_COLUMN = "station"
"""

CLASSIFIER_ESTIMATOR = """
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

PARAMETERS = {"C": 1.0}
PRIMARY_METRIC = "auc"
GREATER_IS_BETTER = True

def build_estimator(parameters):
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["sky"]), (numbers, ["pressure", "wind"])
    )
    return make_pipeline(columns, LogisticRegression(**parameters))

def evaluate(estimator, features, target):
    chance = estimator.predict_proba(features)[:, list(estimator.classes_).index("yes")]
    return {
        "auc": roc_auc_score(target == "yes", chance),
        "accuracy": accuracy_score(target, estimator.predict(features)),
    }
"""


def wood(rows: int = 120, seed: int = 7) -> pd.DataFrame:
    """Trees: a target that is nearly linear in two features."""
    rng = np.random.default_rng(seed)
    girth, height = rng.uniform(8, 21, rows), rng.uniform(60, 90, rows)
    volume = 4.7 * girth + 0.34 * height - 58 + rng.normal(0, 2, rows)
    return pd.DataFrame(
        {"girth": girth.round(2), "height": height.round(1), "volume": volume.round(2)}
    )


def weather(rows: int = 240, seed: int = 7) -> pd.DataFrame:
    """Stations: strings, missing values, an id, two classes."""
    rng = np.random.default_rng(seed)
    sky = rng.choice(["clear", "cloudy", "fog"], rows)
    pressure, wind = rng.normal(1013, 8, rows).round(1), rng.integers(0, 30, rows)
    wet = (sky != "clear") * 1.5 + (1013 - pressure) / 6 + rng.normal(0, 0.7, rows) > 0.8
    frame = pd.DataFrame(
        {
            "station": [f"S{n:04d}" for n in range(rows)],
            "sky": sky,
            "pressure": pressure,
            "wind": wind,
            "rain": np.where(wet, "yes", "no"),
        }
    )
    frame.loc[::17, "pressure"] = np.nan
    frame.loc[5::23, "sky"] = np.nan
    return frame


def write_room(
    folder: Path,
    *,
    contract: str = REGRESSOR_CONTRACT,
    estimator: str = REGRESSOR_ESTIMATOR,
    frame: pd.DataFrame | None = None,
    name: str = "wood",
) -> Path:
    """Put a model room and its data below `folder`, as a user would; returns the data file."""
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    model.mkdir(parents=True)
    (model / "__init__.py").write_text("")
    (model / "contract.py").write_text(contract)
    (model / "estimator.py").write_text(estimator)
    (model / "defaults.env").write_text(
        f"MODEL_NAME={name}\nEXPERIMENT_NAME={name}\nDATA_PATH=data/{name}.csv\n"
    )
    data = folder / "data" / f"{name}.csv"
    data.parent.mkdir(exist_ok=True)
    (wood() if frame is None else frame).to_csv(data, index=False)
    return data


def weather_room(folder: Path) -> Path:
    """The classifier's room below `folder`."""
    return write_room(
        folder,
        contract=CLASSIFIER_CONTRACT,
        estimator=CLASSIFIER_ESTIMATOR,
        frame=weather(),
        name="weather",
    )


def records(folder: Path) -> dict[str, Any]:
    """The local records of the clone in `folder`, by file name without `.json`."""
    import json

    found = (folder / "build" / "local").glob("*.json")
    return {path.name.removesuffix(".json"): json.loads(path.read_text()) for path in found}
