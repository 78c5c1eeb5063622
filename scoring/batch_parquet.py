"""Parquet files: one reader decodes the columns of a slice on all cores, row group after row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.batch_errors import BatchError
from scoring.batch_rows import Position, Rows, Unit, Wanted

#: Bytes read ahead of each column.
_BUFFER = 256 * 1024

#: What a unit has at most: more does not make it faster.
_MOST_ROWS = 131_072


class ParquetInput:
    """Parquet files of one schema, as far as its columns are wanted."""

    def __init__(self, files: Sequence[Path], wanted: Wanted, unit_bytes: int) -> None:
        self._files = files
        self._wanted = wanted
        self._unit_bytes = unit_bytes
        self._before = [0]
        self.kept: dict[str, pa.DataType] = {}
        for path in files:
            with self._open(path) as file:
                self._check(path, file.schema_arrow, files[0])
                self._before.append(self._before[-1] + file.metadata.num_rows)
        self.total = self._before[-1]

    def _open(self, path: Path) -> pq.ParquetFile:
        # As codes, texts that repeat are small; one carried over is written as the text it is.
        texts = [column.name for column in self._wanted.features if column.type == "string"]
        codes = [name for name in texts if name not in self._wanted.keep]
        try:
            return pq.ParquetFile(
                path, buffer_size=_BUFFER, pre_buffer=False, read_dictionary=codes
            )
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error

    def _check(self, path: Path, schema: pa.Schema, first: Path) -> None:
        for name in self._wanted.names:
            if (count := len(schema.get_all_field_indices(name))) != 1:
                what = "has no column" if count == 0 else "has more than one column"
                raise BatchError(f"{path} {what} {name}", "every file must have it, once")
        for column in self._wanted.features:
            kind = schema.field(column.name).type
            if not (_is_number if column.type == "number" else _is_text)(kind):
                raise BatchError(
                    f"{path}: column {column.name} is {kind}, the model takes a {column.type}",
                    "write the file with columns of the types the model was trained on",
                )
        for name in self._wanted.keep:
            kind = schema.field(name).type
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if self.kept.setdefault(name, kind) != kind:
                raise BatchError(
                    f"{path}: column {name} is {kind}, in {first.name} it is {self.kept[name]}",
                    "give the files of one job the same columns",
                )

    def units(self, start: Position) -> Iterator[Unit]:
        for index in range(start.file, len(self._files)):
            path, done = self._files[index], start.rows if index == start.file else 0
            with self._open(path) as file:
                groups = range(file.metadata.num_row_groups)
                rows = [file.metadata.row_group(group).num_rows for group in groups]
                first, skipped = 0, 0
                while first < len(rows) and skipped + rows[first] <= done:
                    skipped += rows[first]
                    first += 1
                batches = file.iter_batches(
                    self._unit_rows(file), groups[first:], self._wanted.names, use_threads=True
                )
                row = skipped
                while True:
                    try:
                        batch = next(batches, None)
                    except (pa.ArrowException, OSError) as error:
                        raise _unreadable(path, error) from error
                    if batch is None:
                        break
                    row += batch.num_rows
                    fresh = min(row - done, batch.num_rows)
                    if fresh > 0:
                        data = batch.slice(batch.num_rows - fresh)
                        yield Unit(index, row - fresh + 1, data, Position(index, row))

    def _unit_rows(self, file: pq.ParquetFile) -> int:
        """Rows that take about `unit_bytes` when decoded."""
        wanted, size = set(self._wanted.names), 0
        for group in range(file.metadata.num_row_groups):
            columns = file.metadata.row_group(group)
            for index in range(columns.num_columns):
                column = columns.column(index)
                if (
                    column.path_in_schema.partition(".")[0] in wanted
                    or column.path_in_schema in wanted
                ):
                    size += column.total_uncompressed_size
        row = max(size / max(file.metadata.num_rows, 1), 8 * len(wanted))
        return int(min(max(self._unit_bytes / row, 256), _MOST_ROWS))

    def rows(self, unit: Unit) -> Rows:
        table = pa.Table.from_batches([unit.data])
        for index, field in enumerate(table.schema):
            if pa.types.is_large_string(field.type) or pa.types.is_string_view(field.type):
                table = table.set_column(index, field.name, table.column(index).cast(pa.string()))
        return Rows(table, lambda indices: [unit.row + index for index in indices], [])

    def done(self, position: Position) -> int:
        return self._before[position.file] + position.rows


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_integer, types.is_floating, types.is_decimal, types.is_null)
    return any(test(kind) for test in tests)


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    return any(test(kind) for test in tests)


def _unreadable(path: Path, error: Exception) -> BatchError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return BatchError(f"{path} is not a whole Parquet file: {first}", "make the file anew")
