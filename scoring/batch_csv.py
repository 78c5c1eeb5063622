"""A CSV file (RFC 4180, commas, UTF-8, a header): cut where a record ends, then parsed by any thread.

pyarrow parses what is well-formed, with numbers as numbers at once; what it cannot is read record by
record here, so that only the records that are wrong are left out.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from scoring.batch_errors import BatchError
from scoring.batch_rows import MISSING, Position, Reject, Rows, Unit, Wanted

#: A header or a quoted value longer than this is taken for a quote left open.
_LONGEST = 1 << 20

_FIELD = rb'(?:"(?:[^"]|"")*+"[^,\r\n]*+|[^",\r\n][^,\r\n]*+|)'
_RECORD = re.compile(rb"%s(?:,%s)*+\r?\n?" % (_FIELD, _FIELD))


class _Record(NamedTuple):
    """One record's text and the line it begins on, from 0; `fault` says why it is none."""

    line: int
    text: bytes
    fault: str = ""


class CsvFile:
    """One file whose header has the columns wanted. Raises BatchError if it has not."""

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self._path = path
        self._wanted = wanted
        self.size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(_LONGEST)
        marked = head.startswith(b"\xef\xbb\xbf")
        record = next(_records(head[3:] if marked else head), None)
        try:
            if record is None or record.fault:
                raise ValueError("it has no header")
            self._header = next(csv.reader([record.text.decode()]), [])
        except (ValueError, csv.Error) as error:
            raise BatchError(f"{path} is not CSV in UTF-8: {error}", "save it as such") from None
        self._start = Position(
            line=1 + record.text.count(b"\n"), byte=len(record.text) + 3 * marked
        )
        for name in wanted.names:
            if (count := self._header.count(name)) != 1:
                what = "has no column" if count == 0 else "has more than one column"
                raise BatchError(
                    f"{path} {what} {name}", "its first line must name every column, once"
                )

    def units(self, start: Position, size: int) -> Iterator[Unit]:
        """Pieces of whole records of about `size` bytes, from `start` on."""
        begin = start if start.byte else self._start
        line, byte = begin.line, begin.byte
        try:
            with self._path.open("rb") as stream:
                stream.seek(byte)
                left = b""
                while block := stream.read(size):
                    text = left + block
                    last = byte + len(text) >= self.size
                    cut = len(text) if last else _last_end(text)
                    text, left = text[:cut], text[cut:]
                    first, line, byte = line, line + text.count(b"\n"), byte + cut
                    yield Unit(start.file, first, text, Position(start.file, 0, line, byte))
        except OSError as error:
            raise BatchError(
                f"{self._path} cannot be read: {error.strerror}", "try again"
            ) from error

    def rows(self, unit: Unit) -> Rows:
        """The records of a unit in columns; numbers are numbers where all of a column are."""
        text: bytes = unit.data
        if text.count(b'"') % 2 == 0 and not _has_odd_lines(text):
            for numbers in (True, False):
                try:
                    return self._parse(unit, numbers)
                except pa.ArrowInvalid:
                    pass
        return self._parse_slowly(unit)

    def _parse(self, unit: Unit, numbers: bool) -> Rows:
        wrong: list[int] = []

        def skip(row: Any) -> str:
            wrong.append(row.number - 1)
            return "skip"

        kept = set(self._wanted.keep)
        types = dict.fromkeys(self._wanted.names, pa.string())
        for column in self._wanted.features:
            if numbers and column.type == "number" and column.name not in kept:
                types[column.name] = pa.float64()
        table = pyarrow.csv.read_csv(
            pa.BufferReader(unit.data),
            read_options=pyarrow.csv.ReadOptions(
                column_names=self._header, use_threads=False, block_size=len(unit.data) + 1
            ),
            parse_options=pyarrow.csv.ParseOptions(
                invalid_row_handler=skip,
                newlines_in_values=b'"' in unit.data,
                ignore_empty_lines=False,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(types), column_types=types, null_values=MISSING
            ),
        )
        return self._as_rows(unit, table, wrong, None)

    def _parse_slowly(self, unit: Unit) -> Rows:
        """The same by Python's csv, for text with blank lines, open quotes or broken UTF-8."""
        values: list[list[str]] = []
        wrong: list[int] = []
        records = [record for record in _records(unit.data) if record.text.strip(b"\r\n")]
        for index, record in enumerate(records):
            fields = [] if record.fault else _fields(record.text)
            if len(fields) != len(self._header):
                wrong.append(index)
            else:
                values.append(fields)
        columns = list(zip(*values, strict=True)) if values else [()] * len(self._header)
        table = pa.table(
            {
                name: pa.array(columns[self._header.index(name)], pa.string())
                for name in self._wanted.names
            }
        )
        return self._as_rows(unit, table, wrong, records)

    def _as_rows(
        self, unit: Unit, table: pa.Table, wrong: list[int], records: list[_Record] | None
    ) -> Rows:
        for index, field in enumerate(table.schema):
            if field.type == pa.string():
                texts = table.column(index)
                empty = pc.equal(texts, "")
                if pc.any(empty).as_py():
                    texts = pc.if_else(empty, pa.scalar(None, pa.string()), texts)
                    table = table.set_column(index, field.name, texts)

        def lines(indices: Sequence[int]) -> list[int]:
            nonlocal records
            if records is None:
                records = list(_records(unit.data))
            parsed = np.delete(np.arange(len(records)), wrong)
            return [unit.row + records[index].line for index in parsed[list(indices)]]

        rejects = []
        if wrong:
            if records is None:
                records = list(_records(unit.data))
            rejects = [self._reject(unit, records[index]) for index in wrong]
        return Rows(table, lines, rejects)

    def _reject(self, unit: Unit, record: _Record) -> Reject:
        fields = _fields(record.text)
        reason = record.fault or f"expected {len(self._header)} values, got {len(fields)}"
        if not fields and not record.fault:
            reason = "not UTF-8 text, or a value of over 128 kB"
        text = record.text.decode(errors="replace").rstrip("\r\n")
        return Reject(unit.row + record.line, "", reason, text)


def _records(text: bytes) -> Iterator[_Record]:
    """The records of a text, one after another; a line whose quote never closes is a fault."""
    begin, line = 0, 0
    while begin < len(text):
        end = text.find(b"\n", begin) + 1 or len(text)
        fault = ""
        if b'"' in text[begin:end]:
            found = _RECORD.match(text, begin, begin + _LONGEST)
            whole = found is not None and (
                found.end() == len(text) or text[found.end() - 1 : found.end()] == b"\n"
            )
            if found is not None and whole:
                end = found.end()
            else:
                fault = "a quote is not closed"
        yield _Record(line, text[begin:end], fault)
        line += text.count(b"\n", begin, end)
        begin = end


def _fields(record: bytes) -> list[str]:
    """A record's fields; none if it is not UTF-8, or one is longer than csv takes."""
    try:
        return next(csv.reader([record.decode()]), [])
    except (UnicodeDecodeError, csv.Error):
        return []


def _has_odd_lines(text: bytes) -> bool:
    """Whether there are blank lines, or line ends that not all readers take for one."""
    if b"\r" in text:
        if text.count(b"\r") != text.count(b"\r\n"):
            return True
        return text.startswith(b"\r\n") or b"\n\r\n" in text
    return text.startswith(b"\n") or b"\n\n" in text


def _last_end(text: bytes) -> int:
    """Where the last record of a text ends that is known to be whole.

    Line ends are no ends of records within quotes, of which an even number comes before an end. Where
    there is no such end, a quote was left open: the last line end will do.
    """
    quotes = text.count(b'"')
    end = len(text)
    while (before := text.rfind(b"\n", 0, end)) >= 0:
        quotes -= text.count(b'"', before + 1, end)
        if quotes % 2 == 0:
            return before + 1
        end = before
    return text.rfind(b"\n") + 1 or len(text)
