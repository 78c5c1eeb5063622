"""A sample of one worker's inputs, folded into its statistics a few times a second."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.drift import Bank, Inputs
from scoring.parse import Features

#: Most rows, and most values, that one call of `fold` takes.
FOLD_ROWS = 512
FOLD_VALUES = 5_120
#: A bank is closed once it has this many rows and is this many seconds old.
BANK_ROWS = 10_000
BANK_SECONDS = 3600.0


class InputSample:
    """Takes references to what is scored, and folds a sample of the rows into one of two banks.

    Statistics are those of both banks together: when the current one is closed, the older is
    cleared and becomes the current. So they tell of the recent past, at least an hour and 10,000
    rows of it.

    `state` is a cell shared between processes: the current bank (0 or 1), plus 2 if the other one
    counts too. A bank is cleared only while it does not count, so a worker that is killed at any
    moment leaves nothing half-cleared behind.
    """

    def __init__(
        self, inputs: Inputs, banks: npt.NDArray[np.float64], cells: memoryview[float], state: int
    ) -> None:
        self._inputs = inputs
        self._banks = banks
        self._cells = cells
        self._state = state
        self._limit = max(1, min(FOLD_ROWS, FOLD_VALUES // len(inputs.names)))
        self._pending: list[Features] = []
        self._rows = 0
        self._since = monotonic()

    def observe(self, features: Features) -> None:
        """Keep the rows of one request until the next fold, unless there are enough already."""
        if self._rows < self._limit:
            self._pending.append(features)
            self._rows += len(features if type(features) is np.ndarray else features[0])

    def fold(self) -> int:
        """Fold what was kept; how many rows that were.

        Of more rows than the limit every second, third and so on is taken, through all requests.
        """
        if not self._pending:
            return 0
        pending, rows = self._pending, self._rows
        self._pending, self._rows = [], 0
        sample = _thinned(pending, -(-rows // self._limit))
        current = int(self._cells[self._state]) % 2
        self._inputs.add(sample, self._banks[current])
        if self._banks[current, 0, 0] >= BANK_ROWS and monotonic() - self._since >= BANK_SECONDS:
            self._close(current)
        return len(sample if isinstance(sample, np.ndarray) else sample[0])

    def _close(self, current: int) -> None:
        other = 1 - current
        self._cells[self._state] = current
        self._banks[other] = 0.0
        self._cells[self._state] = other + 2
        self._since = monotonic()


def counted(banks: npt.NDArray[np.float64], state: float) -> Bank:
    """The sum of a worker's banks that count, of shape (columns, cells)."""
    return np.asarray(banks.sum(axis=0) if state >= 2 else banks[int(state)])


def _thinned(pending: list[Features], step: int) -> Features:
    """Every `step`-th row of all requests, in one piece."""
    if isinstance(pending[0], np.ndarray):
        return _every(pending, step)
    return [_every(column, step) for column in zip(*pending, strict=True)]


def _every(parts: Sequence[Any], step: int) -> npt.NDArray[Any]:
    if step == 1:
        return np.concatenate(parts)
    thinned, offset = [], 0
    for part in parts:
        thinned.append(part[offset::step])
        offset = (offset - len(part)) % step
    return np.concatenate(thinned)
