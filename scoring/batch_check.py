"""Rows held against the model's contract, column by column, as the service holds a request's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scoring.batch_rows import MISSING, Reject, Rows
from scoring.contract import Column

_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_MISSING = pa.array(MISSING)


class Checked(NamedTuple):
    """The rows that the model may see.

    `columns` holds an array of shape (rows,) for each feature: float64 with NaN for what is missing,
    or object (str or None). `kept` holds these rows' indices, None where it is all of them.
    """

    columns: list[npt.NDArray[Any]]
    kept: npt.NDArray[np.intp] | None
    rejects: list[Reject]


def check(features: list[Column], rows: Rows) -> Checked:
    """Sort out the rows in which a feature is not what the contract says; the first one is named."""
    columns: list[npt.NDArray[Any]] = []
    faults: dict[int, tuple[Column, str]] = {}
    for column in features:
        array = rows.table.column(column.name)
        values, bad = (_numbers if column.type == "number" else _strings)(array, column.nullable)
        columns.append(values)
        for index in [] if bad is None else np.flatnonzero(bad).tolist():
            faults.setdefault(index, (column, _text(array[index])))
    if not faults:
        return Checked(columns, None, [])
    bad_rows = sorted(faults)
    kept = np.delete(np.arange(len(rows.table)), bad_rows)
    rejects = [
        Reject(number, column.name, _reason(column, text), text)
        for number, (column, text) in zip(
            rows.numbers(bad_rows), (faults[index] for index in bad_rows), strict=True
        )
    ]
    return Checked([values[kept] for values in columns], kept, rejects)


def _numbers(
    array: pa.ChunkedArray, nullable: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_] | None]:
    """The values, and which are none: missing without leave, no number, or not finite."""
    wrong = None
    if pa.types.is_string(array.type):
        array, wrong = _parsed(array)
    elif array.type != pa.float64():
        array = pc.cast(array, pa.float64(), safe=False)
    values: npt.NDArray[np.float64] = array.to_numpy()
    with np.errstate(all="ignore"):
        # Whatever is not finite makes the sum so: one pass without a mask for the usual case.
        if wrong is None and np.isfinite(values.sum()):
            return values, None
    bad = np.isinf(values) if nullable else ~np.isfinite(values)
    if wrong is not None:
        bad |= wrong
    return values, bad if bad.any() else None


def _parsed(texts: pa.ChunkedArray) -> tuple[pa.ChunkedArray, npt.NDArray[np.bool_]]:
    """Texts as numbers, null where there is none; and where a text is neither number nor missing."""
    plain = pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
    good = pc.match_substring_regex(plain, _NUMBER)
    wrong = pc.invert(pc.or_(good, pc.is_in(plain, _MISSING)))
    numbers = pc.cast(pc.if_else(good, plain, pa.scalar(None, pa.string())), pa.float64())
    return numbers, wrong.to_numpy()


def _strings(
    array: pa.ChunkedArray, nullable: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
    """The values as Python strings, and which are missing without leave.

    Each different text becomes a Python string once.
    """
    if pa.types.is_null(array.type):
        array = pc.cast(array, pa.string())
    coded = array.combine_chunks()
    if not pa.types.is_dictionary(coded.type):
        coded = coded.dictionary_encode()
    texts = np.array([*coded.dictionary.to_pylist(), None], dtype=np.object_)
    codes = coded.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)
    values = texts[codes]
    if nullable or not coded.null_count:
        return values, None
    return values, coded.is_null().to_numpy(zero_copy_only=False)


def _reason(column: Column, text: str) -> str:
    if text in MISSING:
        return f"missing, and every row must have a {column.type} here"
    try:
        float(text)
    except ValueError:
        return "expected a number"
    return "not a finite number"


def _text(value: pa.Scalar) -> str:
    plain = value.as_py()
    return "" if plain is None else str(plain)
