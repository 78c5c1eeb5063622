"""What all workers counted: floats in memory that they share, shown in Prometheus' text format.

The parent makes one anonymous shared mapping before it forks; each worker writes to its own slot
only, without locks, and any of them can add all slots up. A cell is eight aligned bytes, so a worker
that is killed loses at most the request it was counting.

A slot holds a few single cells, answers by path and status, rejections by code, the latencies of
/score by class of status, and two banks of the inputs' statistics.
"""

from __future__ import annotations

import mmap
import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import numpy as np

from scoring.contract import Contract
from scoring.drift import Inputs
from scoring.errors import RequestError
from scoring.sample import InputSample, counted

#: Of what `Metrics.render` gives.
CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"

OTHER = "other"
PATHS = ("/score", "/", "/swagger.json", "/metrics", OTHER)
#: nginx's code for a client that left before its answer; nobody receives it.
CLIENT_LEFT = 499
#: Upper bounds of the latency histogram, in seconds; REQUEST_TIMEOUT is 30 by default.
BOUNDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
STATUS_CLASSES = ("2xx", "4xx", "5xx")

IN_FLIGHT, ALIVE, PREDICTIONS, INPUT_ROWS, BANK_STATE, _FIRST = range(6)
_CELL = 8
_CACHE_LINE = 64 // _CELL


class Layout:
    """Where in a slot each figure is, as indices of cells."""

    def __init__(self, inputs: Inputs) -> None:
        errors = sorted(set(_errors(RequestError)), key=lambda error: error.code)
        self.codes = [*dict.fromkeys(error.code for error in errors), "client_left", OTHER]
        known = sorted({200, CLIENT_LEFT, *(error.status for error in errors)})
        self.statuses = [*map(str, known), OTHER]
        self.requests = _FIRST
        self.rejected = self.requests + len(PATHS) * len(self.statuses)
        #: For each class of status, a cell for each bucket, then the sum of seconds.
        self.latency = self.rejected + len(self.codes)
        self.latency_shape = (len(STATUS_CLASSES), len(BOUNDS) + 2)
        self.banks = self.latency + int(np.prod(self.latency_shape))
        self.banks_shape = (2, *inputs.shape)
        used = self.banks + int(np.prod(self.banks_shape))
        self.width = -(-used // _CACHE_LINE) * _CACHE_LINE

    def request(self, path: str, status: str) -> int:
        """The cell of answers with this status to this path."""
        return self.requests + PATHS.index(path) * len(self.statuses) + self.statuses.index(status)

    def histogram(self, path: str, status: str) -> int:
        """The first cell of the latencies such an answer belongs to, or 0."""
        kind = f"{status[0]}xx"
        if path != "/score" or kind not in STATUS_CLASSES:
            return 0
        return self.latency + STATUS_CLASSES.index(kind) * self.latency_shape[1]


class Metrics:
    """Counters of `workers` workers. Raises StartError if the contract's reference is damaged."""

    def __init__(self, contract: Contract, workers: int) -> None:
        self.contract = contract
        self.inputs = Inputs(contract)
        self.layout = Layout(self.inputs)
        self.started = time.time()
        self._memory = mmap.mmap(-1, workers * self.layout.width * _CELL)
        cells: np.ndarray[Any, np.dtype[np.float64]] = np.frombuffer(self._memory, np.float64)
        self._slots = cells.reshape(workers, self.layout.width)

    def worker(self, index: int) -> WorkerMetrics:
        """The slot of one worker. A worker that takes another's place goes on with its counts."""
        slot = self._slots[index]
        slot[IN_FLIGHT] = 0.0
        slot[ALIVE] = 1.0
        banks = slot[self.layout.banks :][: np.prod(self.layout.banks_shape)]
        cells = memoryview(self._memory).cast("d")
        start = index * self.layout.width
        mine = cells[start : start + self.layout.width]
        sample = InputSample(self.inputs, banks.reshape(self.layout.banks_shape), mine, BANK_STATE)
        return WorkerMetrics(mine, self.layout, sample)

    def release(self, index: int) -> None:
        """Called by the parent when a worker died."""
        self._slots[index, IN_FLIGHT] = 0.0
        self._slots[index, ALIVE] = 0.0

    def totals(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """All cells but the banks, summed over workers."""
        return np.asarray(self._slots[:, : self.layout.banks].sum(axis=0))

    def bank(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The inputs' statistics of all workers, of shape (columns, cells)."""
        found = np.zeros(self.inputs.shape)
        for slot in self._slots:
            banks = slot[self.layout.banks :][: np.prod(self.layout.banks_shape)]
            found += counted(banks.reshape(self.layout.banks_shape), slot[BANK_STATE])
        return found

    def render(self) -> bytes:
        """All metrics, in the format `CONTENT_TYPE` names. Takes milliseconds."""
        from scoring.exposition import render

        return render(self)


class WorkerMetrics:
    """What one worker counts; not to be used from two threads."""

    def __init__(self, cells: memoryview[float], layout: Layout, sample: InputSample) -> None:
        self._cells = cells
        self._layout = layout
        self._sample = sample
        self._requests = {
            (path, int(status)): (layout.request(path, status), layout.histogram(path, status))
            for path in PATHS
            for status in layout.statuses
            if status != OTHER
        }
        self._codes = {code: layout.rejected + at for at, code in enumerate(layout.codes)}
        #: Inputs of one request that was answered 200. The arrays must not change afterwards.
        self.observe = sample.observe

    def began(self) -> None:
        """The headers of a request are complete."""
        self._cells[IN_FLIGHT] += 1.0

    def ended(
        self, path: str, status: int, code: str | None, seconds: float, predictions: int
    ) -> None:
        """A request that began was answered, or its client left; `code` is its error's."""
        cells = self._cells
        cells[IN_FLIGHT] -= 1.0
        request, latency = self._requests.get((path, status)) or self._unusual(path, status)
        cells[request] += 1.0
        if latency:
            cells[latency + bisect_left(BOUNDS, seconds)] += 1.0
            cells[latency + len(BOUNDS) + 1] += seconds
            if predictions:
                cells[PREDICTIONS] += predictions
        if code is not None:
            cells[self._codes.get(code) or self._codes[OTHER]] += 1.0

    def fold(self) -> None:
        """Bring the inputs' statistics up to date; a few milliseconds at most."""
        self._cells[INPUT_ROWS] += self._sample.fold()

    def _unusual(self, path: str, status: int) -> tuple[int, int]:
        """A path or a status of no row of its own: clients must not be able to make rows."""
        path = path if path in PATHS else OTHER
        text = str(status) if str(status) in self._layout.statuses else OTHER
        return self._layout.request(path, text), self._layout.histogram(path, text)


def _errors(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    for error in kind.__subclasses__():
        if hasattr(error, "code"):
            yield error
        yield from _errors(error)
