"""What is not a well-formed HTTP request, or comes too slowly, or is too large."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.scoring.service import Service, receive

HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GOOD = b'{"data": [[1, 2, 3]]}'
LIMIT = 10_000


@pytest.fixture(scope="module")
def limited(regressor_dir: Path) -> Iterator[Service]:
    service = Service(regressor_dir, {"MAX_BODY_BYTES": str(LIMIT), "BODY_TIMEOUT": "0.8"})
    yield service
    service.stop()


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"FETCH / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad\x00Name: x\r\n\r\n",
        HEAD + b"Content-Length: ten\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Content-Length: 21\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(GOOD),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_garbage_is_400_in_json(regressor: Service, garbage: bytes) -> None:
    answer = regressor.raw(garbage)
    assert answer.status == 400
    assert answer.error["code"] == "malformed_request"
    assert answer.headers["connection"] == "close"
    assert regressor.logged(status=400)
    assert regressor.request("GET", "/").status == 200


def test_the_offer_of_another_protocol_is_declined_byte_by_byte(regressor: Service) -> None:
    offer = b"Connection: close, Upgrade\r\nUpgrade: h2c\r\nContent-Length: 21\r\n\r\n"
    with socket.create_connection(("127.0.0.1", regressor.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HEAD + offer + GOOD:
            connection.sendall(bytes([byte]))
        connection.shutdown(socket.SHUT_WR)
        answer = receive(connection)
    assert answer.status == 200
    assert answer.headers["connection"] == "close"


def test_http_1_0_and_chunks(regressor: Service) -> None:
    answer = regressor.raw(HEAD.replace(b"1.1", b"1.0") + b"Content-Length: 21\r\n\r\n" + GOOD)
    assert answer.status == 200
    parts = chunked(GOOD[:5], GOOD[5:])
    headers = b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert regressor.raw(HEAD + headers + parts).status == 200
    trailer = parts[:-2] + b"X-Request-Id: trailer\r\n" * 100 + b"\r\n"
    answer = regressor.raw(HEAD + headers + trailer)
    assert answer.status == 200
    assert answer.headers["x-request-id"] != "trailer"


def test_pipelined_requests_are_answered_in_order(regressor: Service) -> None:
    first = b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: first\r\n\r\n"
    last = b"GET /no HTTP/1.1\r\nHost: x\r\nX-Request-Id: last\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", regressor.port), timeout=20) as connection:
        connection.sendall(first + last)
        content = b""
        while chunk := connection.recv(65536):
            content += chunk
    assert content.index(b"x-request-id: first") < content.index(b"x-request-id: last")
    assert b"HTTP/1.1 404" in content


def test_expect_continue(regressor: Service) -> None:
    with socket.create_connection(("127.0.0.1", regressor.port), timeout=20) as connection:
        connection.sendall(HEAD + b"Connection: close\r\nExpect: 100-continue\r\n")
        connection.sendall(b"Content-Length: 21\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(GOOD)
        assert receive(connection).status == 200


def test_a_large_body_is_refused_before_it_is_sent(limited: Service) -> None:
    answer = limited.raw(HEAD + b"Content-Length: 10001\r\nExpect: 100-continue\r\n\r\n")
    assert answer.status == 413
    assert answer.error["code"] == "body_too_large"
    with socket.create_connection(("127.0.0.1", limited.port), timeout=20) as connection:
        connection.sendall(HEAD + b"Content-Length: 10001\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_exactly_the_limit_is_taken(limited: Service) -> None:
    body = GOOD + b" " * (LIMIT - len(GOOD))
    assert limited.score(body).status == 200
    assert limited.score(body + b" ").status == 413
    headers = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert limited.raw(headers + chunked(body[:LIMIT])).status == 200
    assert limited.raw(headers + chunked(body, b" ")).status == 413


@pytest.mark.parametrize("declared", [True, False])
def test_a_client_that_sends_all_before_it_reads_gets_its_413(
    regressor_dir: Path, start: Callable[..., Service], declared: bool
) -> None:
    service = start(regressor_dir, {"MAX_BODY_BYTES": "100000"})
    before = memory(service.process.pid)
    body = b" " * 1_000_000
    if declared:
        content = HEAD + b"Content-Length: 30000000\r\n\r\n" + body * 30
    else:
        content = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*[body] * 30)
    assert service.raw(content).status == 413
    assert memory(service.process.pid) - before < 10_000_000


def memory(pid: int) -> int:
    """The most memory a process ever had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("sent", [b"", b"{", b'{"data": '])
def test_a_slow_body_is_408_and_holds_nobody_up(limited: Service, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", limited.port), timeout=20) as connection:
        connection.sendall(HEAD + b"Content-Length: 21\r\n\r\n" + sent)
        assert limited.score(GOOD).status == 200
        answer = receive(connection)
    assert answer.status == 408
    assert answer.error["code"] == "too_slow"
    assert answer.headers["connection"] == "close"


def test_slow_headers_are_408(limited: Service) -> None:
    with socket.create_connection(("127.0.0.1", limited.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost")
        answer = receive(connection)
    assert answer.status == 408
    assert answer.error["code"] == "too_slow"


def test_endless_headers_are_431(regressor: Service) -> None:
    with socket.create_connection(("127.0.0.1", regressor.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        with suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"x" * 10_000)
    assert regressor.logged(status=431)
    assert regressor.raw(b"GET / HTTP/1.1\r\nX: " + b"x" * 66_000).status == 431


def test_a_client_that_leaves_is_logged_and_forgotten(regressor: Service) -> None:
    with socket.create_connection(("127.0.0.1", regressor.port), timeout=20) as connection:
        connection.sendall(HEAD + b"X-Request-Id: gone\r\nContent-Length: 21\r\n\r\n{")
    assert regressor.logged(request_id="gone")["status"] == 499
