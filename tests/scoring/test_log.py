"""Request ids, trace contexts and the log line of each request."""

from __future__ import annotations

import uuid
from datetime import datetime

import pytest

from tests.scoring.service import Service

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_line_of_a_request(regressor: Service) -> None:
    headers = {"X-Request-Id": "line-1", "traceparent": TRACE}
    assert regressor.score({"data": [[1, 2, 3]] * 4}, headers).status == 200
    line = regressor.logged(request_id="line-1")
    assert datetime.fromisoformat(line.pop("time")).tzinfo
    assert 0 < line.pop("duration_ms") < 10_000
    assert line == {
        "request_id": "line-1",
        "traceparent": TRACE,
        "predictions": 4,
        "status": 200,
        "method": "POST",
        "path": "/score",
    }


def test_the_line_of_a_refused_request(regressor: Service) -> None:
    regressor.score({"data": [[1, 2]]}, {"X-Request-Id": "line-2"})
    line = regressor.logged(request_id="line-2")
    assert (line["status"], line["predictions"], line["traceparent"]) == (422, 0, None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Request-Id": "a1"}, "a1"),
        ({"X-Ms-Request-Id": "b2"}, "b2"),
        ({"X-Request-Id": "a1", "X-Ms-Request-Id": "b2"}, "b2"),
        ({"X-Request-Id": "|7c-1.2_3:/+=@"}, "|7c-1.2_3:/+=@"),
        ({"X-Request-Id": 'a"b\\c<d> e\xe9'}, "abcde"),
        ({"X-Request-Id": "x" * 1000}, "x" * 128),
    ],
)
def test_the_callers_request_id(regressor: Service, headers: dict[str, str], expected: str) -> None:
    answer = regressor.request("GET", "/", headers=headers)
    assert answer.headers["x-request-id"] == expected
    assert regressor.logged(request_id=expected)["status"] == 200


@pytest.mark.parametrize("headers", [{}, {"X-Request-Id": ""}, {"X-Request-Id": '"<>"'}])
def test_a_new_request_id(regressor: Service, headers: dict[str, str]) -> None:
    answer = regressor.request("GET", "/", headers=headers)
    assert uuid.UUID(answer.headers["x-request-id"])


@pytest.mark.parametrize("trace", ["", "00-1-2-3", TRACE.upper(), TRACE + "\xe9", TRACE + "-x"])
def test_a_trace_context_that_is_none(regressor: Service, trace: str) -> None:
    answer = regressor.request("GET", "/", headers={"traceparent": trace})
    line = regressor.logged(request_id=answer.headers["x-request-id"])
    assert line["traceparent"] is None


def test_long_paths_are_cut_in_the_log(regressor: Service) -> None:
    regressor.request("GET", "/" + "x" * 5000, headers={"X-Request-Id": "long"})
    assert len(regressor.logged(request_id="long")["path"]) == 256
