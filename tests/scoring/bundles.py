"""Tiny packaged models for the tests: a folder with `model/model.json` and a model file."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

NUMBERS: list[dict[str, Any]] = [
    {"name": "width", "type": "number", "nullable": False},
    {"name": "height in cm", "type": "number", "nullable": False},
    {"name": 'depth "outer"', "type": "number", "nullable": False},
]
MIXED = [
    {"name": "size", "type": "number", "nullable": True},
    {"name": "colour", "type": "string", "nullable": False},
    {"name": "shape", "type": "string", "nullable": True},
]

# An estimator whose answer, or trouble, is chosen by the request.
DRILL_CODE = '''
import time
import numpy as np

class Drill:
    """Sleeps `seconds`, then returns `value`, or fails as `mode` says."""

    def predict(self, frame):
        row = frame.iloc[0]
        time.sleep(row["seconds"])
        if row["mode"] == "refuse":
            raise ValueError("no such category\\nmore")
        if row["mode"] == "crash":
            raise KeyError("secret detail")
        if row["mode"] == "exit":
            raise SystemExit(3)
        if row["mode"] == "short":
            return np.zeros(0)
        if row["mode"] == "infinite":
            return np.full(len(frame), np.inf)
        if row["mode"] == "missing":
            return frame["note"].isna().to_numpy(float)
        return frame["seconds"].to_numpy()
'''
DRILL = [
    {"name": "seconds", "type": "number", "nullable": False},
    {"name": "mode", "type": "string", "nullable": False},
    {"name": "note", "type": "string", "nullable": True},
]


def write_bundle(folder: Path, content: bytes, file: str, **contract: Any) -> Path:
    """Write a bundle and return the folder SCORING_MODEL_DIR names."""
    model_dir = folder / "model"
    model_dir.mkdir(parents=True)
    (model_dir / file).write_bytes(content)
    document = {
        "name": "toy",
        "version": 7,
        "target": "price",
        "classes": None,
        "probabilities": False,
        "dtype": "float64",
        "inputs": "matrix",
        "lineage": {"run_id": "abc", "metrics": {}},
        "file": file,
        "sha256": hashlib.sha256(content).hexdigest(),
        **contract,
    }
    (model_dir / "model.json").write_text(json.dumps(document))
    return model_dir


def numbers_regressor(folder: Path) -> Path:
    """price = 2 width + 3 height + 5 depth + 1, in float64."""
    return _linear(folder, LinearRegression(), DoubleTensorType, NUMBERS, dtype="float64")


def float32_regressor(folder: Path) -> Path:
    """The same in float32, a missing height counting as 10."""
    imputer = SimpleImputer(strategy="constant", fill_value=10.0)
    columns = [NUMBERS[0], NUMBERS[1] | {"nullable": True}, NUMBERS[2]]
    estimator = make_pipeline(imputer, LinearRegression())
    return _linear(folder, estimator, FloatTensorType, columns, dtype="float32")


def _linear(
    folder: Path, estimator: Any, tensor: Any, columns: list[dict[str, Any]], dtype: str
) -> Path:
    table = np.random.default_rng(0).uniform(0, 20, (50, 3))
    estimator.fit(table, table @ [2, 3, 5] + 1)
    onnx = to_onnx(estimator, initial_types=[("input", tensor([None, 3]))])
    return write_bundle(
        folder,
        onnx.SerializeToString(),
        "model.onnx",
        kind="regressor",
        columns=columns,
        runtime="onnx",
        dtype=dtype,
        sample={"request": {"data": [[1, 2, 3], [0, 0, 0]]}, "result": [24, 1]},
    )


def mixed_frame() -> tuple[pd.DataFrame, list[str]]:
    """Rows of `MIXED`, and labels that follow from the colour."""
    colours = ["red", "green", "blue"] * 20
    frame = pd.DataFrame(
        {"size": np.arange(60.0), "colour": colours, "shape": ["round", "", "square", "flat"] * 15}
    )
    return frame, [{"red": "stop", "green": "go", "blue": "wait"}[each] for each in colours]


def mixed_classifier(folder: Path) -> Path:
    """Labels are strings; red is stop, green is go, blue is wait. One ONNX input per column."""
    frame, labels = mixed_frame()
    estimator = make_pipeline(
        ColumnTransformer(
            [
                ("numbers", SimpleImputer(), ["size"]),
                ("texts", OneHotEncoder(handle_unknown="ignore"), ["colour", "shape"]),
            ]
        ),
        LogisticRegression(C=100),
    ).fit(frame, labels)
    kinds = {"number": FloatTensorType, "string": StringTensorType}
    onnx = to_onnx(
        estimator,
        initial_types=[(column["name"], kinds[column["type"]]([None, 1])) for column in MIXED],
        options={"zipmap": False},
    )
    return write_bundle(
        folder,
        onnx.SerializeToString(),
        "model.onnx",
        kind="classifier",
        columns=MIXED,
        classes=["go", "stop", "wait"],
        probabilities=True,
        runtime="onnx",
        dtype="float32",
        inputs="columns",
        sample={"request": {"data": [[1, "red", None]]}, "result": ["stop"]},
    )


def sklearn_classifier(folder: Path, labels: list[Any]) -> Path:
    """A tree through joblib: the sign of x decides between two labels."""
    frame = pd.DataFrame({"x": [-2.0, -1.0, 1.0, 2.0]})
    estimator = DecisionTreeClassifier().fit(frame, [labels[0]] * 2 + [labels[1]] * 2)
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return write_bundle(
        folder,
        buffer.getvalue(),
        "model.joblib",
        kind="classifier",
        columns=[{"name": "x", "type": "number", "nullable": False}],
        classes=labels,
        probabilities=True,
        runtime="sklearn",
        inputs="columns",
        sample={"request": {"data": [{"x": -1}]}, "result": labels[:1]},
    )


def drill(folder: Path) -> Path:
    """The estimator of `DRILL_CODE`, from the bundle's own code folder."""
    code = folder / "code" / "drill"
    code.mkdir(parents=True)
    (code / "__init__.py").write_text(DRILL_CODE)
    # A pickle of `drill.Drill()`, which the tests themselves cannot import.
    pickled = b"\x80\x04cdrill\nDrill\n)\x81."
    return write_bundle(
        folder,
        pickled,
        "model.joblib",
        kind="regressor",
        columns=DRILL,
        runtime="sklearn",
        inputs="columns",
        sample={"request": {"data": [[0, "", None]]}, "result": [0]},
    )


def linear_regressor(folder: Path, columns: list[dict[str, Any]] = NUMBERS) -> Path:
    """Twice the first of its columns, three times the next and so on, plus 1; in numpy."""
    coefficients = [float(2 + index) for index in range(len(columns))]
    return write_bundle(
        folder,
        json.dumps({"coefficients": coefficients, "intercept": 1.0}).encode(),
        "linear.json",
        kind="regressor",
        columns=columns,
        runtime="linear",
        sample={"request": {"data": [[0] * len(columns)]}, "result": [1]},
    )


def sklearn_regressor(folder: Path, estimator: Any) -> Path:
    """An estimator of `NUMBERS` through joblib."""
    table = np.random.default_rng(0).uniform(0, 20, (200, 3))
    frame = pd.DataFrame(table, columns=[column["name"] for column in NUMBERS])
    buffer = io.BytesIO()
    joblib.dump(estimator.fit(frame, table @ [2, 3, 5] + 1), buffer)
    return write_bundle(
        folder,
        buffer.getvalue(),
        "model.joblib",
        kind="regressor",
        columns=NUMBERS,
        runtime="sklearn",
        sample={"request": {"data": [[1, 2, 3]]}, "result": [24]},
    )
