"""The model over a unit of rows: checked, predicted, and encoded for the output."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scoring.batch_check import Checked, check
from scoring.batch_errors import BatchError
from scoring.batch_input import Input
from scoring.batch_output import reject_lines
from scoring.batch_rows import Job, Position, Reject, Rows, Unit
from scoring.contract import Contract
from scoring.errors import InvalidData
from scoring.parse import Features
from scoring.runtime import Predictions, load_runtime

#: Rows a model predicts at once: few enough to stay in a core's cache.
_BLOCK = 16_384

PREDICTION = "prediction"


class Part(NamedTuple):
    """What a unit became: the output's rows, as they are and encoded, and its rejects."""

    table: pa.Table
    encoded: pa.Buffer
    rejects: bytes
    rejected: int
    after: Position


class Model:
    """The model over whole columns; any thread may ask it."""

    def __init__(self, contract: Contract, job: Job) -> None:
        self._contract = contract
        self._job = job
        self._runtime = load_runtime(contract, job.model_dir)
        # An estimator of the user's own may not bear two threads; the service has one for it too.
        self._turn: Any = threading.Lock() if contract.runtime == "sklearn" else nullcontext()
        # Columns are copied fastest into columns, but onnxruntime would copy such a matrix again.
        self._order: Any = "F" if contract.runtime == "linear" else "C"
        self._label_type = _label_type(contract)

    def schema(self, source: Input) -> pa.Schema:
        """The output's columns."""
        fields = [pa.field(name, source.kept[name]) for name in self._job.keep]
        fields.append(pa.field(PREDICTION, self._label_type))
        if self._job.probabilities:
            names = probability_columns(self._contract)
            fields += [pa.field(name, pa.float64()) for name in names]
        return pa.schema(fields)

    def part(self, source: Input, unit: Unit, encode: Callable[[pa.Table], pa.Buffer]) -> Part:
        """Check and predict a unit's rows. Raises BatchError if the model breaks on them."""
        file = self._job.files[unit.file]
        rows = source.rows(unit)
        found: list[Predictions] = []
        refused: list[tuple[int, InvalidData]] = []
        try:
            checked = self._sound(rows, found)
            if checked is None:
                found.clear()
                checked = check(self._contract.columns, rows)
                self._predict_all(checked.columns, found, refused)
        except Exception as error:
            raise BatchError(
                f"the model failed on {file} near row {unit.row}: {type(error).__name__}: {error}",
                "mend the model, or take these rows out",
                exit_code=1,
            ) from error
        kept, count = checked.kept, len(checked.columns[0])
        rejects = rows.rejects + checked.rejects
        if refused:
            every = np.arange(count) if kept is None else kept
            indices = [row for row, _ in refused]
            numbers = rows.numbers(every[indices].tolist())
            rejects += [
                _refusal(number, error) for number, (_, error) in zip(numbers, refused, strict=True)
            ]
            kept = np.delete(every, indices)
        carried = rows.table.select(list(self._job.keep))
        if kept is not None:
            carried = carried.take(pa.array(kept))
        columns = [
            pc.cast(carried.column(name), source.kept[name]) for name in self._job.keep
        ] + self._columns(found)
        table = pa.table(columns, schema=self.schema(source))
        return Part(
            table,
            encode(table),
            reject_lines(str(file), sorted(rejects)),
            len(rejects),
            unit.after,
        )

    def _sound(self, rows: Rows, found: list[Predictions]) -> Checked | None:
        """The rows without a look at them, if the model is linear and their predictions are finite.

        A sum of products is finite only if every number in it is.
        """
        columns = [rows.table.column(column.name) for column in self._contract.columns]
        if self._contract.runtime != "linear" or any(each.type != pa.float64() for each in columns):
            return None
        values = [column.to_numpy() for column in columns]
        with np.errstate(all="ignore"):
            self._predict_all(values, found, [])
        finite = all(np.isfinite(each.result).all() for each in found)
        return Checked(values, None, []) if finite else None

    def _predict_all(
        self,
        columns: Sequence[npt.NDArray[Any]],
        found: list[Predictions],
        refused: list[tuple[int, InvalidData]],
    ) -> None:
        count = len(columns[0])
        for start in range(0, count, _BLOCK):
            self._predict(columns, start, min(start + _BLOCK, count), found, refused)

    def _predict(
        self,
        columns: Sequence[npt.NDArray[Any]],
        start: int,
        stop: int,
        found: list[Predictions],
        refused: list[tuple[int, InvalidData]],
    ) -> None:
        """Predict rows `start` to `stop`; where the model refuses them, halve them until it is one."""
        features = self._features([values[start:stop] for values in columns])
        try:
            with self._turn:
                found.append(self._runtime.predict(features, self._job.probabilities))
        except InvalidData as error:
            if stop - start == 1:
                refused.append((start, error))
                return
            middle = (start + stop) // 2
            self._predict(columns, start, middle, found, refused)
            self._predict(columns, middle, stop, found, refused)

    def _features(self, columns: list[npt.NDArray[Any]]) -> Features:
        if not self._contract.takes_matrix:
            return columns
        matrix = np.empty((len(columns[0]), len(columns)), order=self._order)
        for index, values in enumerate(columns):
            matrix[:, index] = values
        return matrix

    def _columns(self, found: Sequence[Predictions]) -> list[pa.Array]:
        """Predictions and, if asked for, probabilities; null where the service would say null."""
        if self._contract.kind == "regressor":
            columns = [_finite([each.result for each in found])]
        else:
            labels = [label for each in found for label in each.result]
            if self._label_type == pa.string():
                labels = [str(label) for label in labels]
            columns = [pa.array(labels, self._label_type)]
        if self._job.probabilities:
            for index in range(len(self._contract.classes or [])):
                columns.append(
                    _finite(
                        [
                            each.probabilities[:, index]
                            for each in found
                            if each.probabilities is not None
                        ]
                    )
                )
        return columns


def _finite(pieces: Sequence[Any]) -> pa.Array:
    values = np.concatenate(pieces) if pieces else np.empty(0)
    finite = np.isfinite(values)
    return pa.array(values) if finite.all() else pa.array(values, mask=~finite)


def _refusal(number: int, error: InvalidData) -> Reject:
    reason = str(error)
    if error.row is not None:
        place = InvalidData("", error.row, error.column)
        reason = reason.removeprefix(str(place))
    return Reject(number, error.column or "", reason, "")


def _label_type(contract: Contract) -> pa.DataType:
    kinds = {type(label) for label in contract.classes or []}
    if contract.kind == "regressor" or kinds in ({float}, {int, float}):
        return pa.float64()
    if len(kinds) > 1:
        return pa.string()
    return {bool: pa.bool_(), int: pa.int64()}.get(kinds.pop(), pa.string())


def probability_columns(contract: Contract) -> list[str]:
    """The columns of a classifier's probabilities, in class order."""
    return [f"probability_{label}" for label in contract.classes or []]
