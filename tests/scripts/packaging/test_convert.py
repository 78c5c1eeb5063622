"""The model file: the same bytes every time, whatever columns are called."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from scripts.errors import SlipwayError
from scripts.packaging.convert import convert
from scripts.packaging.ways import ONNX_WAYS
from tests.scripts.packaging.conftest import HELD_OUT, ROOT, Packager, describe

PROGRAM = """
import hashlib, joblib, sys
from scripts.packaging.convert import convert
from scripts.packaging.ways import ONNX_WAYS
estimator, description = joblib.load(sys.argv[1])
print(hashlib.sha256(convert(estimator, description, ONNX_WAYS[0]).content).hexdigest())
"""


def _mixed(frame: pd.DataFrame) -> Any:
    strings = [name for name in frame if frame[name].dtype == object]
    numbers = [name for name in frame if name not in strings]
    return make_pipeline(
        ColumnTransformer(
            [
                ("n", StandardScaler(), numbers),
                ("s", OneHotEncoder(handle_unknown="ignore", sparse_output=False), strings),
            ]
        ),
        Ridge(),
    )


# With 53, Python's sets of operator domains have another order than with 1.
@pytest.mark.parametrize("seed", ["1", "53"])
def test_another_process_makes_the_same_bytes(
    seed: str, frames: dict[str, pd.DataFrame], targets: dict[str, Any], tmp_path: Path
) -> None:
    import joblib

    frame = frames["mixed"]
    estimator = _mixed(frame).fit(frame, targets["value"])
    description = describe(estimator, frame)
    joblib.dump((estimator, description), tmp_path / "given")

    ours = hashlib.sha256(convert(estimator, description, ONNX_WAYS[0]).content).hexdigest()
    theirs = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / "given")],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    assert theirs == ours


ODD_NAMES = [
    "input",
    "label",
    "variable",
    "weight in kg",
    "Größe",
    "a/b:c",
    "quote'",
    "probabilities",
]


@pytest.mark.parametrize("kind", ["numbers", "mixed"])
def test_columns_may_have_any_name(
    kind: str, frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager
) -> None:
    frame = frames[kind]
    frame = frame.rename(columns=dict(zip(frame.columns, ODD_NAMES, strict=False)))
    numbers = [name for name in frame if frame[name].dtype != object]
    estimator = (
        _mixed(frame)
        if kind == "mixed"
        else make_pipeline(ColumnTransformer([("n", StandardScaler(), numbers[::-1])]), Ridge())
    ).fit(frame[:-HELD_OUT], targets["value"][:-HELD_OUT])

    bundle = packager(estimator, frame)

    assert (bundle.model["runtime"], bundle.model["dtype"]) == ("onnx", "float64")
    assert bundle.model["inputs"] == ("columns" if kind == "mixed" else "matrix")


def test_a_lambda_is_packaged_with_scikit_learn(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager
) -> None:
    frame = frames["numbers"]
    estimator = make_pipeline(FunctionTransformer(lambda values: values * 2), Ridge())
    estimator.fit(frame, targets["value"])

    bundle = packager(estimator, frame)

    assert bundle.model["runtime"] == "sklearn"
    assert [each["runtime"] for each in bundle.proof["rejected"]] == ["linear", "onnx", "onnx"]


def test_onnx_can_be_demanded(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager
) -> None:
    frame = frames["numbers"]
    estimator = make_pipeline(FunctionTransformer(abs), Ridge()).fit(frame, targets["value"])

    with pytest.raises(SlipwayError, match=r"onnx float64: .*; onnx float32: ") as raised:
        packager(estimator, frame, runtime="onnx")

    assert raised.value.exit_code == 1
    assert "RUNTIME" in raised.value.mend
    assert [each["dtype"] for each in raised.value.figures["rejected"]] == ["float64", "float32"]


def test_scikit_learn_can_be_demanded(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager
) -> None:
    frame = frames["numbers"]
    estimator = Ridge().fit(frame, targets["value"])

    bundle = packager(estimator, frame, runtime="sklearn")

    assert (bundle.model["runtime"], bundle.model["dtype"]) == ("sklearn", "object")
    assert bundle.proof["rejected"] == []
