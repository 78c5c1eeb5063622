"""Runs the packaged model on checked rows.

A missing number is NaN for both runtimes. A missing string is "" for ONNX, whose string tensors
know no null, and a missing value of a pandas string column for scikit-learn.
"""

from __future__ import annotations

import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.contract import Contract, read_model
from scoring.errors import InvalidData, StartError
from scoring.parse import Row

_TENSORS: dict[str, Any] = {
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(string)": np.object_,
}


class Predictions(msgspec.Struct, frozen=True):
    """`result` holds a value or label per row; `probabilities` a list per row, in class order.

    A number that is not finite stands as None: JSON has no other way to say it.
    """

    result: list[Any]
    probabilities: list[list[float | None]] | None = None


class Runtime(ABC):
    """A loaded model."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        # 1 == 1.0 == True: looking a label up gives it the type the contract declares.
        self._labels = {label: label for label in contract.classes or []}

    def predict(self, rows: Sequence[Row], probabilities: bool = False) -> Predictions:
        """Predict every row. Raises InvalidData if the model refuses them."""
        values, shares = self._run(rows, probabilities)
        if len(values) != len(rows):
            raise RuntimeError(f"the model gave {len(values)} predictions for {len(rows)} rows")
        if self._contract.kind == "classifier":
            labels = values.reshape(-1).tolist()
            result = [self._labels.get(label, label) for label in labels]
        else:
            result = _finite(values[:, 0] if values.ndim == 2 else values)
        return Predictions(result, None if shares is None else _finite(shares))

    @abstractmethod
    def _run(
        self, rows: Sequence[Row], probabilities: bool
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Predictions of shape (rows,) or (rows, 1); probabilities of shape (rows, classes)."""


class LinearRuntime(Runtime):
    """Coefficients and an intercept: rows @ coefficients + intercept."""

    def __init__(self, contract: Contract, content: bytes) -> None:
        super().__init__(contract)
        found = msgspec.json.decode(content)
        self._coefficients = np.array(found["coefficients"], dtype=np.float64)
        self._intercept = float(found["intercept"])

    def _run(
        self, rows: Sequence[Row], probabilities: bool
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.array(rows, dtype=np.float64) @ self._coefficients + self._intercept, None


class OnnxRuntime(Runtime):
    """An ONNX model in onnxruntime, on `threads` threads."""

    def __init__(self, contract: Contract, content: bytes, threads: int = 1) -> None:
        import onnxruntime

        super().__init__(contract)
        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = threads
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
        self, rows: Sequence[Row], probabilities: bool
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        if self._contract.inputs == "columns":
            feeds = self._columns(rows)
        else:
            feeds = {self._matrix: self._narrow(np.array(rows, dtype=np.float64))}
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

    def _columns(self, rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
        feeds: dict[str, npt.NDArray[Any]] = {}
        columns = zip(*rows, strict=True)
        for name, dtype, values in zip(self._contract.names, self._types, columns, strict=True):
            if dtype is None:  # a column the estimator takes and never looks at
                continue
            if dtype is np.object_:
                texts = ["" if value is None else value for value in values]
                feeds[name] = np.array(texts, dtype=dtype).reshape(-1, 1)
            else:
                numbers = np.array(values, dtype=np.float64).reshape(-1, 1)
                feeds[name] = _narrowed(numbers, dtype, [name])
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
        self, rows: Sequence[Row], probabilities: bool
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        import pandas as pd

        columns = zip(*rows, strict=True)
        frame = pd.DataFrame(
            {
                column.name: pd.Series(
                    values, dtype="float64" if column.type == "number" else "str"
                )
                for column, values in zip(self._contract.columns, columns, strict=True)
            }
        )
        try:
            values = np.asarray(self._estimator.predict(frame))
            shares = np.asarray(self._estimator.predict_proba(frame)) if probabilities else None
        except ValueError as error:
            raise InvalidData(f"the model refuses these rows: {_first_line(error)}") from error
        return values, shares


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


def _finite(numbers: npt.NDArray[Any]) -> list[Any]:
    exact = numbers.astype(np.float64)
    finite = np.isfinite(exact)
    if finite.all():
        return exact.tolist()  # type: ignore[no-any-return]
    boxed = exact.astype(np.object_)
    boxed[~finite] = None
    return boxed.tolist()  # type: ignore[no-any-return]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
