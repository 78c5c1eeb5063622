"""Strict reading of a request body: JSON in, features in column order out.

Rows of numbers alone, the common case, are read by simdjson straight into a matrix; msgspec reads
everything else in one checked pass, and what it refuses, `scoring.explain` names.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import simdjson

from scoring.contract import Column, Contract
from scoring.errors import InvalidData, NotJson
from scoring.explain import explain

#: Rows in column order: a float64 matrix of shape (rows, columns) where every column is a number,
#: else one array of shape (rows,) for each column, float64 or object (str or None). A missing
#: number is NaN.
Features = npt.NDArray[np.float64] | list[npt.NDArray[Any]]

_Row = tuple[float | str | None, ...]

_STARTS_WITH_OBJECT = re.compile(rb"\[[ \t\n\r]*\{")
_NUMBERS_AND_SPACE = b"0123456789.eE+- \t\r\n"


class ScoreRequest(NamedTuple):
    """A checked request."""

    features: Features
    rows: int
    probabilities: bool = False


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    data: msgspec.Raw
    probabilities: bool = False


class RequestParser:
    """Parses request bodies for one contract; any thread may call it.

    Accepts {"data": [[value, ...], ...]} or {"data": [{"column": value, ...}, ...]}, with an
    optional "probabilities": true. Numbers only in number columns (no booleans), strings only in
    string columns, null only where the column is nullable.
    """

    def __init__(self, contract: Contract, max_rows: int) -> None:
        self._contract = contract
        self._names = contract.names
        self._name_set = frozenset(contract.names)
        self._max_rows = max_rows
        cells = tuple(_cell_type(column) for column in contract.columns)
        row: Any = tuple.__class_getitem__(cells)
        self._rows_type: Any = list.__class_getitem__(row)
        self._envelope = msgspec.json.Decoder(_Envelope)
        self._arrays = msgspec.json.Decoder(self._rows_type)
        self._objects = msgspec.json.Decoder(list[dict[str, float | str | None]])
        self._takes_matrix = contract.takes_matrix
        # A row of numbers once the numbers are taken out, and the one-row body around it.
        self._row = b"[%s]" % (b"," * (len(contract.columns) - 1))
        self._one_row = b'{"data":[%s]}' % self._row
        self._simdjson = threading.local()

    def parse(self, body: bytes) -> ScoreRequest:
        """Check `body`. Raises NotJson if it is not JSON in UTF-8, InvalidData otherwise."""
        if self._takes_matrix and (matrix := self._parse_matrix(body)) is not None:
            request = ScoreRequest(matrix, len(matrix))
        else:
            request = self._parse_strictly(body)
        self._check_count(request.rows)
        if request.probabilities and not self._contract.probabilities:
            raise InvalidData('this model has no probabilities; leave out "probabilities"')
        return request

    def _check_count(self, rows: int) -> None:
        if rows > self._max_rows:
            raise InvalidData(f'"data" has {rows} rows; at most {self._max_rows} are allowed')

    def _parse_matrix(self, body: bytes) -> npt.NDArray[np.float64] | None:
        """The rows of `{"data": [[number, ...], ...]}`; None for a body that is anything else.

        simdjson flattens rows of different widths without a word. But a body of numbers has no
        other brackets and commas than its rows have, so those tell the widths; and were there
        anything but numbers, something of it would be left beside them.
        """
        skeleton = body.translate(None, _NUMBERS_AND_SPACE)
        rows = 1
        if skeleton != self._one_row:
            rows, rest = divmod(len(skeleton) - len(self._one_row), len(self._row) + 1)
            rows += 1
            if rest or rows < 1:
                return None
            many = b",".join([self._row] * rows)
            if skeleton != b'{"data":[%s]}' % many:
                return None
        try:
            parser = self._simdjson.parser
        except AttributeError:
            parser = self._simdjson.parser = simdjson.Parser()
        try:
            flat = parser.parse(body)["data"].as_buffer(of_type="d")
        except (ValueError, KeyError, TypeError, RuntimeError):
            # Not JSON after all, or numbers beyond 64 bits: the strict pass decides.
            return None
        numbers = np.frombuffer(flat, dtype=np.float64)
        if len(numbers) != rows * len(self._names):
            return None  # a row of one column has no comma, be it empty or not
        return numbers.reshape(rows, -1)

    def _parse_strictly(self, body: bytes) -> ScoreRequest:
        try:
            envelope = self._envelope.decode(body)
            rows = self._decode_rows(envelope.data)
        except msgspec.ValidationError:
            raise explain(body, self._contract.columns, self._max_rows) from None
        except RecursionError:
            raise NotJson("the body is nested too deeply") from None
        except ValueError as error:  # msgspec.DecodeError or UnicodeDecodeError
            raise NotJson(f"the body is not JSON in UTF-8: {error}") from None
        if not rows:
            raise InvalidData('"data" has no rows')
        self._check_count(len(rows))  # before the costly part
        return ScoreRequest(self._features(rows), len(rows), envelope.probabilities)

    def _decode_rows(self, data: msgspec.Raw) -> Sequence[_Row]:
        if not _STARTS_WITH_OBJECT.match(data):
            rows: list[_Row] = self._arrays.decode(data)
            return rows
        objects = self._objects.decode(data)
        if any(row.keys() != self._name_set for row in objects):
            raise msgspec.ValidationError
        ordered = [tuple([row[name] for name in self._names]) for row in objects]
        converted: list[_Row] = msgspec.convert(ordered, self._rows_type)
        return converted

    def _features(self, rows: Sequence[_Row]) -> Features:
        if self._takes_matrix:
            return np.array(rows, dtype=np.float64)
        return [
            np.array(values, dtype=np.float64 if column.type == "number" else np.object_)
            for column, values in zip(self._contract.columns, zip(*rows, strict=True), strict=True)
        ]


def _cell_type(column: Column) -> Any:
    value: Any = float if column.type == "number" else str
    return value | None if column.nullable else value
