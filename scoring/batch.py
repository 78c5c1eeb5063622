"""Batch scoring: files of any size in, predictions in the same order out, with bounded memory.

One thread reads bounded slices, all cores check and predict them, and one thread writes them in order.
It runs in the toolbox and is no part of the scoring image.
"""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scoring.batch_check import Checked, check
from scoring.batch_errors import BatchError
from scoring.batch_input import SUFFIXES, Input, open_input
from scoring.batch_output import Output, making, reject_lines, rejects_path
from scoring.batch_rows import Position, Reject, Rows, Unit, Wanted
from scoring.contract import FILE_NAME, Contract, load_contract
from scoring.errors import InvalidData, StartError
from scoring.parse import Features
from scoring.runtime import Predictions, load_runtime

#: Decoded input in flight, in bytes, however many cores there are.
_IN_FLIGHT = 48 << 20
_MOST_WORKERS = 16

#: Rows a model predicts at once: few enough to stay in a core's cache.
_BLOCK = 16_384

PREDICTION = "prediction"


@dataclass(frozen=True)
class Job:
    """What to score: `files` of one kind, with the model in `model_dir`, into `output`.

    `keep` names columns of the input that are carried over. `probabilities` asks for a column for
    each class of a classifier.
    """

    model_dir: Path
    files: Sequence[Path]
    output: Path
    keep: Sequence[str] = ()
    probabilities: bool = False


class Progress(NamedTuple):
    """How far a job is: `share` of the input from 0 to 1, rows written and rejected so far."""

    share: float
    written: int
    rejected: int


class Summary(NamedTuple):
    """What a job did. `resumed` rows had been done by earlier calls; `seconds` are this call's.

    `peak_bytes` is the most memory this process was resident with.
    """

    written: int
    rejected: int
    resumed: int
    seconds: float
    peak_bytes: int

    @property
    def rows_per_second(self) -> float:
        """Of the rows that this call did."""
        return (self.written + self.rejected - self.resumed) / max(self.seconds, 1e-9)


class _Part(NamedTuple):
    table: pa.Table
    encoded: pa.Buffer
    rejects: bytes
    rejected: int
    after: Position


def score_files(job: Job, progress: Callable[[Progress], None] = lambda _: None) -> Summary:
    """Do the job, or finish one that was interrupted. Raises BatchError."""
    began = time.monotonic()
    with _disk(job.output):
        try:
            contract = load_contract(job.model_dir)
            model = _Model(contract, job)
        except StartError as error:
            raise BatchError(str(error), "package the model again", error.exit_code) from error
        _check_output(job, contract)
        workers = min(_cores(), _MOST_WORKERS)
        wanted = Wanted(contract.columns, job.keep)
        source = open_input(job.files, wanted, _IN_FLIGHT // (workers + 1))
        schema = model.schema(source)
        with making(job.output, _origin(job), schema) as output:
            resumed = output.written + output.rejected
            _run(source, model, output, workers, progress)
            if output.written + output.rejected == 0:
                raise BatchError("INPUT has no rows", "name files with rows in them")
            output.publish()
        seconds = time.monotonic() - began
        return Summary(output.written, output.rejected, resumed, seconds, peak_bytes())


def _cores() -> int:
    # macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_bytes() -> int:
    """The most memory this process was resident with."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _check_output(job: Job, contract: Contract) -> None:
    output = job.output
    if output.suffix.lower() not in SUFFIXES:
        raise BatchError(f"OUTPUT={output} ends in neither .csv nor .parquet", "its end says which")
    if not output.parent.is_dir():
        raise BatchError(f"the folder of OUTPUT={output} does not exist", "make it first")
    if output.is_dir():
        raise BatchError(f"OUTPUT={output} is a folder", "name a file in it")
    if any(
        path.resolve() in (output.resolve(), rejects_path(output).resolve()) for path in job.files
    ):
        raise BatchError(
            f"INPUT takes in OUTPUT={output} or its rejects", "write to another file or folder"
        )
    if job.probabilities and not contract.probabilities:
        raise BatchError("PROBABILITIES: this model has none", "leave it out")
    twice = [name for name in job.keep if job.keep.count(name) > 1]
    added = [PREDICTION, *_probability_columns(contract)] if job.probabilities else [PREDICTION]
    for name in [*twice, *(name for name in job.keep if name in added)]:
        raise BatchError(
            f"KEEP={','.join(job.keep)}: the output would have two columns {name}",
            "leave it out, or rename it in the input",
        )


def _origin(job: Job) -> dict[str, Any]:
    """Everything the output is made from; whatever differs, the job starts over."""
    return {
        "format": 1,
        "model": hashlib.sha256((job.model_dir / FILE_NAME).read_bytes()).hexdigest(),
        "input": [
            [str(path), status.st_size, status.st_mtime_ns]
            for path in job.files
            for status in [path.stat()]
        ],
        "output": job.output.name,
        "keep": list(job.keep),
        "probabilities": job.probabilities,
    }


def _run(
    source: Input,
    model: _Model,
    output: Output,
    workers: int,
    progress: Callable[[Progress], None],
) -> None:
    """Read here, predict on `workers` threads, write on one more, all at the same time."""

    def write(part: _Part) -> None:
        output.add(part.table, part.encoded, part.rejects, part.rejected, part.after)

    def shown() -> None:
        share = source.done(output.position) / max(source.total, 1)
        progress(Progress(share, output.written, output.rejected))

    writing: Future[None] | None = None
    pending: deque[Future[_Part]] = deque()
    pool, writer = ThreadPoolExecutor(workers), ThreadPoolExecutor(1)
    try:
        shown()
        units = source.units(output.position)
        unit = next(units, None)
        while unit is not None or pending:
            if unit is not None:
                pending.append(pool.submit(model.part, source, unit, output.encode))
                unit = next(units, None)
                if len(pending) <= workers and unit is not None:
                    continue
            part = pending.popleft().result()
            if writing is not None:
                writing.result()
                shown()
            writing = writer.submit(write, part)
            del part
        if writing is not None:
            writing.result()
        shown()
    finally:
        pool.shutdown(cancel_futures=True)
        writer.shutdown()


class _Model:
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
            names = _probability_columns(self._contract)
            fields += [pa.field(name, pa.float64()) for name in names]
        return pa.schema(fields)

    def part(self, source: Input, unit: Unit, encode: Callable[[pa.Table], pa.Buffer]) -> _Part:
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
        return _Part(
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


def _probability_columns(contract: Contract) -> list[str]:
    return [f"probability_{label}" for label in contract.classes or []]


@contextmanager
def _disk(output: Path) -> Iterator[None]:
    """Say plainly what the disk or the folder of the output refuses."""
    try:
        yield
    except BrokenPipeError:  # the reader of the progress went away
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BatchError(
                f"no space is left on the disk of {output}",
                "free some and run the same again: it goes on at the last finished part",
                exit_code=1,
            ) from error
        raise BatchError(
            f"{error.filename or output}: {error.strerror or error}",
            "check the folder of OUTPUT and its rights",
        ) from error
