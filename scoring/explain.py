"""Why a request body was refused: the row, the column and what was expected there.

Runs only after msgspec has refused a body, and row by row, so that it needs little memory whatever
a client sent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from scoring.contract import Column
from scoring.errors import InvalidData, NotJson, RequestError

# Whole numbers as floats too: an endless one is then infinite, as an endless fraction is.
_SCAN = json.JSONDecoder(parse_int=float).raw_decode
_SPACE = re.compile(r"[ \t\n\r]*").match
_KINDS = {'"': "a string", "t": "a boolean", "f": "a boolean", "n": "null"}
_KINDS |= {"[": "an array", "{": "an object"}


def explain(body: bytes, columns: Sequence[Column], max_rows: int) -> RequestError:
    """The error for `body`, which msgspec refused for its types, maybe before it was read whole.

    Looks no further than `max_rows`: whoever sends many rows must not hold the model up for long.
    """
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
        _walk(_Cursor(body.decode()), columns, max_rows)
    except InvalidData as error:
        return error
    except RecursionError:
        return NotJson("the body is nested too deeply")
    except ValueError as error:  # msgspec.DecodeError or UnicodeDecodeError
        return NotJson(f"the body is not JSON in UTF-8: {error}")
    return InvalidData("the rows are not what this model takes; see /swagger.json")


class _Cursor:
    """A place in a JSON text, never on white space."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._skip_space()

    def kind(self) -> str:
        """What the value here is, in words."""
        return _KINDS.get(self.character(), "a number")

    def character(self) -> str:
        return self._text[self._position : self._position + 1]

    def step(self) -> str:
        """Pass one character and return it."""
        passed = self.character()
        self._position += 1
        self._skip_space()
        return passed

    def value(self) -> Any:
        """Pass one value and return it."""
        value, self._position = _SCAN(self._text, self._position)
        self._skip_space()
        return value

    def _skip_space(self) -> None:
        self._position = _SPACE(self._text, self._position).end()  # type: ignore[union-attr]


def _walk(cursor: _Cursor, columns: Sequence[Column], max_rows: int) -> None:
    """Raise InvalidData for the first thing wrong with the body."""
    if cursor.kind() != "an object":
        raise InvalidData('the body must be an object like {"data": [[...], ...]}')
    seen = False
    while cursor.step() in "{," and cursor.character() != "}":
        field = cursor.value()
        cursor.step()
        if field == "data":
            seen = True
            _walk_rows(cursor, columns, max_rows)
        elif field == "probabilities":
            if cursor.kind() != "a boolean":
                raise InvalidData(f'"probabilities" must be true or false, not {cursor.kind()}')
            cursor.value()
        else:
            raise InvalidData(f"unknown field {_shown([field])}")
    if not seen:
        raise InvalidData('"data" is missing')


def _walk_rows(cursor: _Cursor, columns: Sequence[Column], max_rows: int) -> None:
    if cursor.kind() != "an array":
        raise InvalidData(f'"data" must be an array of rows, not {cursor.kind()}')
    first_kind, index = "", 0
    while cursor.step() in "[,":
        if cursor.character() == "]":
            cursor.step()
            return
        if index == max_rows:
            raise InvalidData(f'"data" has more than {max_rows} rows')
        kind = cursor.kind()
        first_kind = first_kind or kind
        if kind not in ("an array", "an object"):
            raise InvalidData(f"expected an array or an object, got {kind}", row=index)
        if kind != first_kind:
            raise InvalidData(f"it is {kind}, but row 0 is {first_kind}; use one form", row=index)
        _check_row(index, cursor.value(), columns)
        index += 1


def _check_row(index: int, row: list[Any] | dict[str, Any], columns: Sequence[Column]) -> None:
    if isinstance(row, dict):
        names = [column.name for column in columns]
        if missing := [name for name in names if name not in row]:
            raise InvalidData(f"missing column {_shown(missing)}", row=index)
        if unknown := sorted(row.keys() - set(names)):
            raise InvalidData(f"unknown column {_shown(unknown)}", row=index)
        row = [row[name] for name in names]
    elif len(row) != len(columns):
        raise InvalidData(f"expected {len(columns)} values, got {len(row)}", row=index)
    for column, value in zip(columns, row, strict=True):
        kind = _kind_of(value)
        if kind == "null" and column.nullable:
            continue
        if kind != f"a {column.type}":
            expected = f"a {column.type} or null" if column.nullable else f"a {column.type}"
            raise InvalidData(f"expected {expected}, got {kind}", index, column.name)
        if kind == "a number" and not math.isfinite(value):
            raise InvalidData("the number is out of range", index, column.name)


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "an object"
        case _:
            return "a number"


def _shown(names: Sequence[str]) -> str:
    """Some names for a message, bounded whatever a client sent."""
    shown = ", ".join(f'"{name[:60]}"' for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
