"""Whatever the bytes, the parser answers with rows or with a request's error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scoring.contract import Column, Contract, Sample
from scoring.errors import InvalidData, NotJson
from scoring.parse import RequestParser, ScoreRequest

COLUMNS = [Column("a", "number"), Column("b", "string", nullable=True)]
PARSER = RequestParser(
    Contract(
        name="toy",
        version=1,
        kind="regressor",
        target="y",
        columns=COLUMNS,
        runtime="sklearn",
        file="model.joblib",
        sha256="",
        sample=Sample({}, []),
    ),
    max_rows=100_000,
)

CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([])
)
LISTS = st.lists(CELLS, max_size=3)
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), CELLS, max_size=3)
ROWS = st.lists(st.one_of(LISTS, OBJECTS, CELLS), max_size=3)
DOCUMENTS = st.dictionaries(st.sampled_from(["data", "probabilities", "x"]), ROWS | CELLS)


def fits(document: Any) -> bool:
    """Whether a decoded body is one the parser must take, said once more in plain Python."""
    if set(document) - {"probabilities"} != {"data"}:
        return False
    if document.get("probabilities", False) is not False:
        return False
    rows = document["data"]
    if not isinstance(rows, list) or not rows or len({type(row) for row in rows}) != 1:
        return False
    for row in rows:
        if isinstance(row, dict) and row.keys() == {"a", "b"}:
            number, text = row["a"], row["b"]
        elif isinstance(row, list) and len(row) == 2:
            number, text = row
        else:
            return False
        if type(number) not in (int, float) or not (text is None or isinstance(text, str)):
            return False
    return True


def parse(body: bytes) -> ScoreRequest | NotJson | InvalidData:
    try:
        return PARSER.parse(body)
    except (NotJson, InvalidData) as error:
        return error


@settings(max_examples=300, deadline=None, database=None)
@given(DOCUMENTS)
@example({"data": [{"b": None, "a": 10**400}]})
def test_json_is_taken_exactly_if_it_fits(document: Any) -> None:
    text = json.dumps(document)
    parsed = parse(text.encode())
    if isinstance(parsed, NotJson):
        assert any(word in text for word in ("NaN", "Infinity"))
    elif isinstance(parsed, InvalidData):
        assert not fits(document) or "out of range" in str(parsed)
    else:
        assert fits(document)
        for row, sent in zip(parsed.rows, document["data"], strict=True):
            assert row == tuple(sent if isinstance(sent, list) else (sent["a"], sent["b"]))


@settings(max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=60), st.integers(0, 40), st.integers(0, 3))
def test_damaged_bytes(noise: bytes, place: int, removed: int) -> None:
    good = b'{"data": [{"a": 1.5, "b": "x"}, {"a": 2, "b": null}]}'
    for body in (noise, good[:place] + noise + good[place + removed :]):
        assert parse(body)


def test_a_large_refused_body_names_its_last_row() -> None:
    body = json.dumps({"data": [[1, "x"]] * 50_000 + [[1, 2]]}).encode()
    with pytest.raises(InvalidData) as caught:
        PARSER.parse(body)
    assert (caught.value.row, caught.value.column) == (50_000, "b")
