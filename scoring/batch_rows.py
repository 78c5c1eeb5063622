"""What passes between the parts of the batch scorer: a slice of a file, its rows, and rejects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from scoring.contract import Column

#: What counts as missing in a number column of a CSV file, as where models are trained.
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")


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


class Wanted(NamedTuple):
    """The columns to read: the model's, and those carried over."""

    features: Sequence[Column]
    keep: Sequence[str]

    @property
    def names(self) -> list[str]:
        """Every column once, the model's first."""
        return list(dict.fromkeys([*(column.name for column in self.features), *self.keep]))


class Position(NamedTuple):
    """How far the input is done: `file` counts from 0; `rows`, `line` and `byte` are within it."""

    file: int = 0
    rows: int = 0
    line: int = 1
    byte: int = 0


class Unit(NamedTuple):
    """Some rows as they lie in a file, and the position after them.

    `data` is CSV text of whole records from `line` on, or a batch of Parquet rows; `row` is the
    number of the first, from 1.
    """

    file: int
    row: int
    data: Any
    after: Position


class Reject(NamedTuple):
    """A row left out: its number in the file (in CSV the line it begins on), why, and its text."""

    row: int
    column: str
    reason: str
    value: str


class Rows(NamedTuple):
    """A unit's rows in columns, and those that are no rows.

    `numbers` gives the numbers in the file of some of them, counted from 0 in `table`.
    """

    table: pa.Table
    numbers: Callable[[Sequence[int]], list[int]]
    rejects: list[Reject]
