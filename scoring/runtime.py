"""Runs the packaged model on checked features.

A missing number is NaN for both runtimes. A missing string is "" for ONNX, whose string tensors
know no null, and a missing value of a pandas string column for scikit-learn.
"""

from __future__ import annotations

import io
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.contract import Contract, read_model
from scoring.errors import InvalidData, StartError
from scoring.parse import Features

_TENSORS: dict[str, Any] = {
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(string)": np.object_,
}


class Predictions(NamedTuple):
    """What a model gave for some rows.

    `result` has shape (rows,): float64 of a regressor, labels of a classifier. `probabilities` has
    shape (rows, classes), in class order.
    """

    result: npt.NDArray[np.float64] | list[Any]
    probabilities: npt.NDArray[np.float64] | None = None


class Runtime(ABC):
    """A loaded model."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        # 1 == 1.0 == True: looking a label up gives it the type the contract declares.
        self._labels = {label: label for label in contract.classes or []}

    def predict(self, features: Features, probabilities: bool = False) -> Predictions:
        """Predict every row. Raises InvalidData if the model refuses them."""
        rows = len(features) if isinstance(features, np.ndarray) else len(features[0])
        values, shares = self._run(features, probabilities)
        if len(values) != rows:
            raise RuntimeError(f"the model gave {len(values)} predictions for {rows} rows")
        result: npt.NDArray[np.float64] | list[Any]
        if self._contract.kind == "classifier":
            labels = values.reshape(-1).tolist()
            result = [self._labels.get(label, label) for label in labels]
        else:
            result = _exact(values[:, 0] if values.ndim == 2 else values)
        return Predictions(result, None if shares is None else _exact(shares))

    @abstractmethod
    def _run(
        self, features: Features, probabilities: bool
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Predictions of shape (rows,) or (rows, 1); probabilities of shape (rows, classes)."""


class LinearRuntime(Runtime):
    """A linear regressor: coefficients of shape (columns,) and an intercept, from JSON."""

    def __init__(self, contract: Contract, content: bytes) -> None:
        super().__init__(contract)
        model = msgspec.json.decode(content, type=_Linear)
        if len(model.coefficients) != len(contract.columns):
            raise ValueError(
                f"{len(model.coefficients)} coefficients for {len(contract.columns)} columns"
            )
        self._coefficients = np.array(model.coefficients, dtype=np.float64)
        self._intercept = model.intercept

    def _run(
        self, features: Features, probabilities: bool
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        return features @ self._coefficients + self._intercept, None


class _Linear(msgspec.Struct):
    coefficients: list[float]
    intercept: float


class OnnxRuntime(Runtime):
    """An ONNX model in onnxruntime, on one thread."""

    def __init__(self, contract: Contract, content: bytes) -> None:
        import onnxruntime

        super().__init__(contract)
        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]
        inputs = {each.name: _TENSORS[each.type] for each in self._session.get_inputs()}
        if contract.inputs == "columns":
            self._types = [inputs.pop(name, None) for name in contract.names]
            if inputs:
                raise ValueError(f"it has inputs that are no columns: {sorted(inputs)}")
        else:
            ((self._matrix, self._matrix_type),) = inputs.items()

    def _run(
        self, features: Features, probabilities: bool
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        if self._contract.inputs == "columns":
            feeds = self._columns(features)
        else:
            feeds = {self._matrix: self._narrow(features)}  # type: ignore[arg-type]
        try:
            outputs = self._session.run(self._outputs[: 2 if probabilities else 1], feeds)
        except MemoryError:
            raise
        except Exception as error:
            # onnxruntime's exceptions have no common base; the rows themselves are well-formed.
            raise InvalidData(f"the model refuses these rows: {_first_line(error)}") from error
        return np.asarray(outputs[0]), np.asarray(outputs[1]) if probabilities else None

    def _narrow(self, matrix: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        if self._matrix_type is np.float64:
            return matrix
        return _narrowed(matrix, self._matrix_type, self._contract.names)

    def _columns(self, features: Features) -> dict[str, npt.NDArray[Any]]:
        columns = features.T if isinstance(features, np.ndarray) else features
        feeds: dict[str, npt.NDArray[Any]] = {}
        for name, dtype, values in zip(self._contract.names, self._types, columns, strict=True):
            if dtype is None:  # a column the estimator takes and never looks at
                continue
            if dtype is np.object_:
                texts = ["" if value is None else value for value in values]
                feeds[name] = np.array(texts, dtype=dtype).reshape(-1, 1)
            else:
                feeds[name] = _narrowed(values.reshape(-1, 1), dtype, [name])
        return feeds


class SklearnRuntime(Runtime):
    """A scikit-learn estimator from joblib, given DataFrames with the columns' names."""

    def __init__(self, contract: Contract, content: bytes, code_dir: Path) -> None:
        import joblib

        super().__init__(contract)
        # The estimator may use classes of the model's own package.
        if code_dir.is_dir() and str(code_dir) not in sys.path:
            sys.path.insert(0, str(code_dir))
        self._estimator = joblib.load(io.BytesIO(content))

    def _run(
        self, features: Features, probabilities: bool
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        frame = self._frame(features)
        try:
            values = np.asarray(self._estimator.predict(frame))
            shares = np.asarray(self._estimator.predict_proba(frame)) if probabilities else None
        except ValueError as error:
            raise InvalidData(f"the model refuses these rows: {_first_line(error)}") from error
        return values, shares

    def _frame(self, features: Features) -> Any:
        import pandas as pd

        if isinstance(features, np.ndarray):
            # A copy: an estimator may write into what it is given.
            return pd.DataFrame(features.copy(), columns=self._contract.names)
        return pd.DataFrame(
            {
                column.name: pd.Series(
                    values, dtype="float64" if column.type == "number" else "str"
                )
                for column, values in zip(self._contract.columns, features, strict=True)
            }
        )


def load_runtime(contract: Contract, model_dir: Path) -> Runtime:
    """Load the model beside its contract. Raises StartError if it is wrong or cannot be loaded."""
    content = read_model(contract, model_dir)
    try:
        if contract.runtime == "linear":
            return LinearRuntime(contract, content)
        if contract.runtime == "onnx":
            return OnnxRuntime(contract, content)
        return SklearnRuntime(contract, content, model_dir.parent / "code")
    except Exception as error:
        raise StartError(
            f"cannot load the model {model_dir / contract.file}: "
            f"{type(error).__name__}: {_first_line(error)}",
            exit_code=1,
        ) from error


def _narrowed(numbers: npt.NDArray[np.float64], dtype: Any, names: list[str]) -> npt.NDArray[Any]:
    """`numbers` of shape (rows, names) as `dtype`. Raises InvalidData for one that does not fit."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrowed = numbers.astype(dtype)
    whole = dtype is np.int64
    bad = numbers != narrowed if whole else np.abs(numbers) > np.finfo(dtype).max
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InvalidData(
            "the number does not fit this model's type", row=int(row), column=names[column]
        )
    return narrowed


def _exact(numbers: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """`numbers` as orjson takes them; what is not finite it writes as null."""
    return np.ascontiguousarray(numbers, dtype=np.float64)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
