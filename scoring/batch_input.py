"""The input of a batch job: which files, and their rows in order, a bounded slice at a time."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from scoring.batch_csv import CsvFile
from scoring.batch_errors import BatchError
from scoring.batch_parquet import ParquetInput
from scoring.batch_rows import Position, Rows, Unit, Wanted

SUFFIXES = (".csv", ".parquet")

#: Bytes of CSV that are one unit at most: more does not make it faster.
_MOST_TEXT = 4 << 20


def find_files(pattern: str, root: Path) -> list[Path]:
    """The files that `pattern` names, sorted: a file, those in a folder, or those a glob matches.

    It is relative to `root`, or absolute. Of a folder hidden files and others than CSV and Parquet
    are left out. Raises BatchError if there are none, or not all are of one kind.
    """
    path = root / pattern
    if path.is_dir():
        found = [
            Path(folder, name)
            for folder, folders, names in os.walk(path)
            for name in names
            if not _hidden(Path(folder, name).relative_to(path))
            and Path(name).suffix.lower() in SUFFIXES
        ]
    elif path.exists():
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        found = [each for each in found if not each.is_dir()]
    if not found:
        missing = "holds no .csv and no .parquet file" if path.is_dir() else "does not exist"
        if glob.has_magic(pattern) and not path.exists():
            missing = "matches no file"
        raise BatchError(
            f"INPUT={pattern} {missing}", "name a CSV or Parquet file, a folder or a glob"
        )
    suffixes = {each.suffix.lower() for each in found}
    if not suffixes <= set(SUFFIXES):
        odd = next(each for each in sorted(found) if each.suffix.lower() not in SUFFIXES)
        raise BatchError(f"{odd} is neither .csv nor .parquet", "INPUT takes CSV or Parquet files")
    if len(suffixes) > 1:
        raise BatchError(
            f"INPUT={pattern} names both CSV and Parquet files", "score the one and the other apart"
        )
    return sorted(found)


def _hidden(path: Path) -> bool:
    return any(part[0] in "._" for part in path.parts)


class Input(Protocol):
    """Files of one kind, whose columns were found to be there and of fitting types."""

    #: What a carried column is in the output, by name.
    kept: dict[str, pa.DataType]
    #: How much there is: rows of Parquet, bytes of CSV.
    total: int

    def units(self, start: Position) -> Iterator[Unit]:
        """The slices from `start` on. Raises BatchError if a file cannot be read."""

    def rows(self, unit: Unit) -> Rows:
        """A slice's rows; any thread may ask."""

    def done(self, position: Position) -> int:
        """How much of `total` lies before `position`."""


class CsvInput:
    """CSV files; every carried column is text."""

    def __init__(self, files: Sequence[Path], wanted: Wanted, unit_bytes: int) -> None:
        self._files = [CsvFile(path, wanted) for path in files]
        self._unit_bytes = min(unit_bytes, _MOST_TEXT)
        self._before = [0]
        for file in self._files:
            self._before.append(self._before[-1] + file.size)
        self.kept: dict[str, pa.DataType] = dict.fromkeys(wanted.keep, pa.string())
        self.total = self._before[-1]

    def units(self, start: Position) -> Iterator[Unit]:
        for index in range(start.file, len(self._files)):
            begin = start if index == start.file else Position(index)
            yield from self._files[index].units(begin, self._unit_bytes)

    def rows(self, unit: Unit) -> Rows:
        return self._files[unit.file].rows(unit)

    def done(self, position: Position) -> int:
        return self._before[position.file] + position.byte


def open_input(files: Sequence[Path], wanted: Wanted, unit_bytes: int) -> Input:
    """Look at every file's columns. Raises BatchError naming the first file that does not fit."""
    for path in files:
        try:
            empty = path.stat().st_size == 0
            path.open("rb").close()
        except OSError as error:
            raise BatchError(
                f"{path} cannot be read: {error.strerror}", "check its rights"
            ) from None
        if empty:
            raise BatchError(f"{path} is empty", "take it out, or give it a header and rows")
    kind: Any = CsvInput if files[0].suffix.lower() == ".csv" else ParquetInput
    opened: Input = kind(files, wanted, unit_bytes)
    return opened
