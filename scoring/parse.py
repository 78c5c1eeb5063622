"""Strict reading of a request body: JSON in, rows in column order out.

msgspec checks everything in one fast pass; what it refuses, `scoring.explain` names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from scoring.contract import Column, Contract
from scoring.errors import InvalidData, NotJson
from scoring.explain import explain

Row = tuple[float | str | None, ...]

_STARTS_WITH_OBJECT = re.compile(rb"\[[ \t\n\r]*\{")


class ScoreRequest(msgspec.Struct, frozen=True):
    """A checked request: `rows` in column order, all of full width."""

    rows: Sequence[Row]
    probabilities: bool = False


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    data: msgspec.Raw
    probabilities: bool = False


class RequestParser:
    """Parses request bodies for one contract.

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

    def parse(self, body: bytes) -> ScoreRequest:
        """Check `body`. Raises NotJson if it is not JSON in UTF-8, InvalidData otherwise."""
        try:
            envelope = self._envelope.decode(body)
            rows = self._decode_rows(envelope.data)
        except msgspec.ValidationError:
            raise explain(body, self._contract.columns) from None
        except RecursionError:
            raise NotJson("the body is nested too deeply") from None
        except ValueError as error:  # msgspec.DecodeError or UnicodeDecodeError
            raise NotJson(f"the body is not JSON in UTF-8: {error}") from None
        if not rows:
            raise InvalidData('"data" has no rows')
        if len(rows) > self._max_rows:
            raise InvalidData(f'"data" has {len(rows)} rows; at most {self._max_rows} are allowed')
        if envelope.probabilities and not self._contract.probabilities:
            raise InvalidData('this model has no probabilities; leave out "probabilities"')
        return ScoreRequest(rows, envelope.probabilities)

    def _decode_rows(self, data: msgspec.Raw) -> Sequence[Row]:
        if not _STARTS_WITH_OBJECT.match(data):
            rows: list[Row] = self._arrays.decode(data)
            return rows
        objects = self._objects.decode(data)
        if any(row.keys() != self._name_set for row in objects):
            raise msgspec.ValidationError
        ordered = [tuple([row[name] for name in self._names]) for row in objects]
        converted: list[Row] = msgspec.convert(ordered, self._rows_type)
        return converted


def _cell_type(column: Column) -> Any:
    value: Any = float if column.type == "number" else str
    return value | None if column.nullable else value
