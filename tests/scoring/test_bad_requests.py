"""Every malformed request gets the right status and a JSON error that names the trouble."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scoring.service import JSON, Service

GOOD = b'{"data": [[1, 2, 3]]}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"data",
        b"{",
        b'{"data": [[1, 2, 3]]',
        b'{"data": [[1, 2, 3]]} x',
        b'{"data": [[1, 2, 3],]}',
        b'{"data": [[1, 2, 03]]}',
        b'{"data": [[1, 2, .5]]}',
        b'{"data": [[1, 2, NaN]]}',
        b'{"data": [[1, 2, Infinity]]}',
        b"{'data': [[1, 2, 3]]}",
        b'\xef\xbb\xbf{"data": [[1, 2, 3]]}',
        b'{"data": [[1, 2, "\xff"]]}',
        b'{"dat\xff": [[1, 2, 3]]}',
        b'{"data": [[true, 2, 3]], "x": "\xff"}',
        '{"data": [[1, 2, 3]]}'.encode("utf-16"),
        b"\x00",
        b"[1, 2",
        b'{"unknown": 1, "data": ',
        b"[" * 100_000,
        b'{"data":' * 10_000,
    ],
)
def test_not_json_is_400(regressor: Service, body: bytes) -> None:
    answer = regressor.score(body)
    assert answer.status == 400
    assert answer.error["code"] == "not_json"


DEPTH = 'depth "outer"'


@pytest.mark.parametrize(
    ("document", "row", "column", "words"),
    [
        (b"[]", None, None, '{"data"'),
        (b"null", None, None, '{"data"'),
        (b"3", None, None, '{"data"'),
        (b'"data"', None, None, '{"data"'),
        ({}, None, None, '"data" is missing'),
        ({"probabilities": False}, None, None, '"data" is missing'),
        ({"data": None}, None, None, "not null"),
        ({"data": "x"}, None, None, "not a string"),
        ({"data": {}}, None, None, "not an object"),
        ({"data": 1}, None, None, "not a number"),
        ({"data": []}, None, None, "no rows"),
        ({"data": [[1, 2, 3]], "method": "x"}, None, None, 'unknown field "method"'),
        ({"inputs": [[1, 2, 3]]}, None, None, 'unknown field "inputs"'),
        ({"data": [[1, 2, 3]], "probabilities": 1}, None, None, "not a number"),
        ({"data": [[1, 2, 3]], "probabilities": None}, None, None, "not null"),
        ({"data": [[1, 2, 3]], "probabilities": True}, None, None, "no probabilities"),
        ({"data": [1, 2, 3]}, 0, None, "got a number"),
        ({"data": [[1, 2, 3], None]}, 1, None, "got null"),
        ({"data": [[1, 2, 3], "x"]}, 1, None, "got a string"),
        ({"data": [[]]}, 0, None, "expected 3 values, got 0"),
        ({"data": [[1, 2, 3], [1, 2]]}, 1, None, "expected 3 values, got 2"),
        ({"data": [[1, 2, 3], [1, 2, 3, 4]]}, 1, None, "expected 3 values, got 4"),
        ({"data": [[1, 2, 3], {}]}, 1, None, "row 0 is an array"),
        ({"data": [{"width": 1, "height in cm": 2, DEPTH: 3}, []]}, 1, None, "row 0 is an object"),
        ({"data": [[1, "2", 3]]}, 0, "height in cm", "expected a number, got a string"),
        ({"data": [[1, 2, 3], [1, 2, None]]}, 1, DEPTH, "expected a number, got null"),
        ({"data": [[True, 2, 3]]}, 0, "width", "got a boolean"),
        ({"data": [[1, [2], 3]]}, 0, "height in cm", "got an array"),
        ({"data": [[1, {}, 3]]}, 0, "height in cm", "got an object"),
        (b'{"data": [[1, 2, 1e999]]}', 0, DEPTH, "out of range"),
        (b'{"data": [[1, -1%s, 3]]}' % (b"0" * 5000), 0, "height in cm", "out of range"),
        ({"data": [{}]}, 0, None, 'missing column "width", "height in cm"'),
        ({"data": [{"width": 1, DEPTH: 3}]}, 0, None, 'missing column "height in cm"'),
        (
            {"data": [{"width": 1, "height in cm": 2, DEPTH: 3, "x": 4}]},
            0,
            None,
            'unknown column "x"',
        ),
        ({"data": [{"width": 1, "height in cm": 2, DEPTH: "3"}]}, 0, DEPTH, "got a string"),
        ({"data": [{"width": 1, "height in cm": True, DEPTH: 3}]}, 0, "height in cm", "a boolean"),
        ({"data": [{"width": 1, "height in cm": 2, DEPTH: {"a": []}}]}, 0, DEPTH, "an object"),
    ],
)
def test_wrong_data_is_422_and_named(
    regressor: Service, document: Any, row: int | None, column: str | None, words: str
) -> None:
    answer = regressor.score(document)
    assert answer.status == 422
    assert answer.error["code"] == "invalid_data"
    assert words in answer.error["message"]
    assert (answer.error.get("row"), answer.error.get("column")) == (row, column)


@pytest.mark.parametrize(
    ("data", "column", "words"),
    [
        ([["1", "red", ""]], "size", "expected a number or null, got a string"),
        ([[1, None, ""]], "colour", "expected a string, got null"),
        ([[1, 5, ""]], "colour", "expected a string, got a number"),
        ([[1, "red", False]], "shape", "expected a string or null, got a boolean"),
        ([{"size": 1, "colour": "red", "shape": 0}], "shape", "got a number"),
    ],
)
def test_wrong_types_among_mixed_columns(
    classifier: Service, data: Any, column: str, words: str
) -> None:
    answer = classifier.score({"data": data})
    assert answer.status == 422
    assert (answer.error["row"], answer.error["column"]) == (0, column)
    assert words in answer.error["message"]


def test_messages_stay_short(regressor: Service) -> None:
    columns = {f"{index:05}" + "x" * 500: 1 for index in range(200)}
    known = {"width": 1, "height in cm": 2, DEPTH: 3}
    answer = regressor.score({"data": [known | columns]})
    assert answer.status == 422
    assert "and 195 more" in answer.error["message"]
    assert len(answer.content) < 1000


@pytest.mark.parametrize("mode", ["refuse", "crash", "short"])
def test_what_the_model_refuses_and_our_own_bugs(drills: Service, mode: str) -> None:
    answer = drills.score({"data": [[0, mode, None]]})
    if mode == "refuse":
        assert answer.status == 422
        assert answer.error["message"].endswith("no such category")
        return
    assert answer.status == 500
    assert b"Traceback" not in answer.content
    assert b"secret" not in answer.content
    line = drills.logged(event="error", request_id=answer.headers["x-request-id"])
    assert "Traceback" in line["traceback"]
    assert drills.score({"data": [[0, "", None]]}).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/score", 405, "POST"),
        ("PUT", "/score", 405, "POST"),
        ("OPTIONS", "/score", 405, "POST"),
        ("POST", "/", 405, "GET, HEAD"),
        ("DELETE", "/swagger.json", 405, "GET, HEAD"),
        ("GET", "/scores", 404, None),
        ("POST", "/score/", 404, None),
        ("GET", "//", 404, None),
        ("GET", "/%00%ff", 404, None),
        ("GET", "/../etc/passwd", 404, None),
    ],
)
def test_paths_and_methods(
    regressor: Service, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = regressor.request(method, path, GOOD if method in ("PUT", "POST") else None, JSON)
    assert answer.status == status
    assert answer.error
    assert answer.headers.get("allow") == allow


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": ""},
        {},
        JSON | {"Content-Encoding": "br"},
        JSON | {"Content-Encoding": "gzip, gzip"},
    ],
)
def test_media_types(regressor: Service, headers: dict[str, str]) -> None:
    answer = regressor.request("POST", "/score", GOOD, headers)
    assert answer.status == 415
    assert answer.error["code"] == "unsupported_media_type"


GZIP = {"Content-Encoding": "gzip"}
PACKED = gzip.compress(GOOD, mtime=0)


def test_a_gzip_body_is_unpacked(regressor: Service) -> None:
    members = gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:])
    for body in (gzip.compress(GOOD), members):
        assert regressor.score(body, GZIP).json == regressor.score(GOOD).json
    assert regressor.score(GOOD, {"Content-Encoding": "identity"}).status == 200


@pytest.mark.parametrize("body", [GOOD, PACKED[:-1], PACKED + b"x", PACKED[:2]])
def test_what_is_no_gzip_is_400(regressor: Service, body: bytes) -> None:
    answer = regressor.score(body, GZIP)
    assert answer.status == 400
    assert "gzip" in answer.error["message"]


def test_a_bomb_is_413_before_it_is_unpacked(regressor: Service) -> None:
    bomb = gzip.compress(b" " * (1 << 30), compresslevel=1)
    assert len(bomb) < 10 * 1024 * 1024
    before = regressor.memory_mb()
    answer = regressor.score(bomb, GZIP)
    assert answer.status == 413
    assert "once unpacked" in answer.error["message"]
    assert regressor.memory_mb(peak=True) < before + 60


def test_the_key(regressor_dir: Path, start: Callable[..., Service]) -> None:
    service = start(regressor_dir, {"SCORING_KEY": "s3cret+/="})
    for header in ("Bearer s3cret+/=", "bearer  s3cret+/= "):
        assert service.score(GOOD, {"Authorization": header}).status == 200
    refused = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer s3cret",
        "Bearer s3cret+/=x",
        "Basic s3cret+/=",
        "s3cret+/=",
        "Bearer \xff",
    ]
    for header in refused:
        answer = service.score(GOOD, {"Authorization": header})
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "s3cret" not in answer.content.decode()
        assert answer.error["code"] == "unauthorized"
    assert service.score(GOOD).status == 401
    assert service.request("GET", "/").status == 200
    description = service.request("GET", "/swagger.json").json
    assert description["paths"]["/score"]["post"]["security"] == [{"key": []}]


def test_too_many_rows(regressor_dir: Path, start: Callable[..., Service]) -> None:
    service = start(regressor_dir, {"MAX_ROWS": "3"})
    assert service.score({"data": [[1, 2, 3]] * 3}).status == 200
    answer = service.score({"data": [[1, 2, 3]] * 4})
    assert answer.status == 422
    assert "4 rows; at most 3" in answer.error["message"]


def test_every_error_carries_the_request_id(regressor: Service) -> None:
    answer = regressor.score(b"{", {"X-Request-Id": "abc-1"})
    assert json.loads(answer.content)["error"]["request_id"] == "abc-1"
    assert answer.headers["x-request-id"] == "abc-1"
