"""Requests that share a connection: pipelined, half-closed, refused half-way, behind a slow one."""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scoring import bundles
from tests.scoring.service import Service

HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def post(body: bytes, headers: bytes = b"") -> bytes:
    return HEAD + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


def drill(seconds: float, mode: str = "") -> bytes:
    return json.dumps({"data": [[seconds, mode, None]]}).encode()


def exchange(service: Service, content: bytes, *, half_close: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(content)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(1 << 20):
            received += chunk
    return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (GET + b"garbage\r\n\r\n" + GET, [200, 400]),
        (post(drill(0.1)) + b"garbage\r\n\r\n" + GET, [200, 400]),
        (post(drill(0.1)) + GET + b"garbage\r\n\r\n", [200, 200, 400]),
        (post(drill(0.1)) + post(b"{") + post(drill(0)) + LAST, [200, 400, 200, 200]),
        (post(drill(0.1), b"Connection: close\r\n") + GET, [200]),
        (LAST + GET, [200]),
        (b"\r\n\r\n" + LAST, [200]),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + LAST, [200, 200]),
        (b"GET / HTTP/1.0\r\n\r\n", [200]),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + LAST, [200, 200]),
        (b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n" + LAST, [200, 200]),
        (HEAD + b"Content-Length: 99999999\r\n\r\n" + GET, [413]),
        (post(drill(0.1)) + HEAD + b"Content-Length: 99999999\r\n\r\n", [200, 413]),
        (post(drill(0.1)) + b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello" + GET, [200, 405]),
    ],
)
def test_each_is_answered_in_its_turn(drills: Service, content: bytes, expected: list[int]) -> None:
    found = statuses(exchange(drills, content + LAST, half_close=True))
    assert found[: len(expected)] == expected
    assert set(found[len(expected) :]) <= {200}


def test_a_half_closed_client_gets_its_answer(drills: Service) -> None:
    assert statuses(exchange(drills, post(drill(0.2)), half_close=True)) == [200]


@pytest.mark.parametrize("count", [1, 3_000])
def test_offers_of_another_protocol_are_declined_however_many(
    regressor: Service, count: int
) -> None:
    offer = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert statuses(exchange(regressor, offer * count + LAST)) == [200] * (count + 1)


def test_http_1_0_is_not_told_to_continue(regressor: Service) -> None:
    old = post(b'{"data": [[1, 2, 3]]}', b"Expect: 100-continue\r\n").replace(b"/1.1", b"/1.0")
    assert statuses(exchange(regressor, old)) == [200]


def test_a_large_body_and_half_a_head_in_one_segment(regressor: Service) -> None:
    body = b'{"data": [' + b"[1, 2, 3]," * 9_000 + b"[1, 2, 3]]}"
    with socket.create_connection(("127.0.0.1", regressor.port), timeout=20) as connection:
        for _ in range(20):
            connection.sendall(post(body) + GET[:10])
            time.sleep(0.02)
            connection.sendall(GET[10:])
        connection.sendall(LAST)
        received = b""
        while chunk := connection.recv(1 << 20):
            received += chunk
    assert set(statuses(received)) == {200}


def test_clients_that_reset_the_connection_leave_no_trace(drills: Service) -> None:
    for content in (b"", GET[:9], post(drill(0.1)), post(drill(0.1)) + GET, HEAD + b"\r\n"):
        for _ in range(5):
            connection = socket.create_connection(("127.0.0.1", drills.port), timeout=20)
            reset = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            connection.sendall(content)
            connection.close()
    deadline = time.monotonic() + 20
    while drills.score(drill(0)).status != 200:  # 503 while theirs are worked off
        assert time.monotonic() < deadline


def test_a_model_that_exits_fails_its_own_request_alone(drills: Service) -> None:
    assert drills.score(drill(0, "exit")).status == 500
    assert drills.score(drill(0)).status == 200


def test_bodies_made_to_be_slow_are_refused_soon(
    tmp_path: Path, start: Callable[..., Service]
) -> None:
    columns = bundles.NUMBERS[:1]
    service = start(bundles.linear_regressor(tmp_path, columns), {"REQUEST_TIMEOUT": "5"})
    parts = gzip.compress(b"", mtime=0) * 400_000
    assert service.score(parts, {"Content-Encoding": "gzip"}).status == 400
    assert service.score(b'{"data": [' + b"[1]," * 2_000_000 + b'["x"]]}').status == 422
    assert service.score(b"[" + b" " * 9_000_000 + b"]").status == 422


@pytest.mark.parametrize("rows", [b"[]", b"[1],[]", b"[],[1]", b"[],[]"])
def test_an_empty_row_of_a_model_with_one_column(
    tmp_path: Path, start: Callable[..., Service], rows: bytes
) -> None:
    service = start(bundles.linear_regressor(tmp_path, bundles.NUMBERS[:1]))
    answer = service.score(b'{"data":[' + rows + b"]}")
    assert answer.status == 422
    assert "expected 1 values, got 0" in answer.error["message"]
