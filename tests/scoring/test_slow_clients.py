"""Clients that send or read slowly, or nothing at all, hold nobody up and are cut off in time."""

from __future__ import annotations

import resource
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.scoring import bundles
from tests.scoring.service import Service

HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GOOD = b'{"data": [[1, 2, 3]]}'
SECONDS = 2.0
HEALTHY = 0.1  # what docs/scoring.md promises: nobody waits behind slow clients
MANY = 400


@pytest.fixture(scope="module")
def linear_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.linear_regressor(tmp_path_factory.mktemp("linear"))


@pytest.fixture
def service(linear_dir: Path, start: Callable[..., Service]) -> Service:
    return start(linear_dir, {"BODY_TIMEOUT": str(SECONDS)})


def times(service: Service, seconds: float) -> list[float]:
    """How long each new client's health check and request took meanwhile."""
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for ask in (lambda: service.request("GET", "/"), lambda: service.score(GOOD)):
            began = time.perf_counter()
            assert ask().status == 200
            found.append(time.perf_counter() - began)
        time.sleep(0.01)
    return found


@contextmanager
def clients(service: Service, count: int, content: bytes) -> Iterator[list[socket.socket]]:
    """That many connections on which `content` was sent."""
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            address = ("127.0.0.1", service.port)
            connection = stack.enter_context(socket.create_connection(address, timeout=20))
            connection.sendall(content)
            found.append(connection)
        yield found


@contextmanager
def trickle(connections: list[socket.socket], piece: bytes) -> Iterator[None]:
    """A thread that sends one more piece on every connection, again and again."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.2):
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(piece)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def last(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    content = b""
    with suppress(ConnectionError):
        while chunk := connection.recv(1 << 20):
            content += chunk
    return content


@pytest.mark.parametrize(
    ("begun", "piece"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"x"),
        (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
    ids=["headers", "body", "chunks"],
)
def test_slow_senders_hold_nobody_up_and_get_408(
    service: Service, begun: bytes, piece: bytes
) -> None:
    before = service.memory_mb()
    with clients(service, MANY, begun) as connections, trickle(connections, piece):
        assert statistics.median(times(service, SECONDS)) < HEALTHY
        assert service.memory_mb() - before < 30
        statuses = [last(connection)[:12] for connection in connections]
    assert statuses == [b"HTTP/1.1 408"] * MANY


def test_idle_connections_hold_nobody_up(service: Service) -> None:
    before = service.memory_mb()
    with clients(service, 2 * MANY, b""):
        assert statistics.median(times(service, 1)) < HEALTHY
        assert service.memory_mb() - before < 30


@pytest.mark.parametrize("ending", [b"", b"Connection: close\r\n"], ids=["open", "close"])
def test_clients_that_never_read_are_cut_off(
    linear_dir: Path, start: Callable[..., Service], ending: bytes
) -> None:
    settings = {"BODY_TIMEOUT": str(SECONDS), "MAX_ROWS": "2000000"}
    service = start(linear_dir, settings)
    # The answer is longer than what the kernel keeps for a client.
    body = b'{"data": [' + b"[1e-7,7,3]," * 800_000 + b"[1,2,3]]}"
    content = HEAD + ending + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with ExitStack() as stack:
        connections = []
        for _ in range(4):
            connection = stack.enter_context(socket.socket())
            # Little enough that most of the answer stays with the service.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(20)
            connection.connect(("127.0.0.1", service.port))
            connection.sendall(content)
            connections.append(connection)
        for _ in connections:
            assert service.logged(status=200, path="/score")["predictions"] > 10_000
        assert statistics.median(times(service, 2 * SECONDS)) < HEALTHY
        for connection in connections:
            assert connections_of(service, connection) == 0


def connections_of(service: Service, client: socket.socket) -> int:
    """1 if the service still holds its end of a client's connection."""
    port = client.getsockname()[1]
    ends = f":{service.port:04X}", f":{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # A socket without inode belongs to no process any more.
    return sum((line[1][-5:], line[2][-5:]) == ends and line[9] != "0" for line in lines)


def test_a_client_that_pipelines_and_does_not_read_costs_little(service: Service) -> None:
    before = service.memory_mb()
    slow_first = HEAD + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"
    flood = slow_first + b"GET /swagger.json HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000
    with clients(service, 20, flood):
        assert statistics.median(times(service, 2)) < HEALTHY
        assert service.memory_mb() - before < 60


def test_it_gets_all_its_answers_once_it_reads(service: Service) -> None:
    count = 5_000
    flood = b"GET /swagger.json HTTP/1.1\r\nHost: x\r\n\r\n" * count
    end = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        sender = threading.Thread(target=connection.sendall, args=[flood + end])
        sender.start()
        time.sleep(0.5)
        assert last(connection).count(b"HTTP/1.1 200") == count + 1
        sender.join()


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_body_of_300_mb_costs_no_memory(service: Service, declared: bool) -> None:
    before = service.memory_mb(peak=True)
    piece = b" " * 1_000_000
    length = b"Content-Length: 300000000" if declared else b"Transfer-Encoding: chunked"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(HEAD + length + b"\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(300):
                connection.sendall(piece if declared else b"f4240\r\n%s\r\n" % piece)
            connection.sendall(b"" if declared else b"0\r\n\r\n")
        assert last(connection).startswith(b"HTTP/1.1 413")
    assert service.memory_mb(peak=True) - before < 40


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"Content-Length: 999999999999999\r\n", b"413"),
        (b"Content-Length: 10000000\r\n", b"408"),
    ],
)
def test_a_large_declared_length_alone_costs_no_memory(
    service: Service, begun: bytes, status: bytes
) -> None:
    before = service.memory_mb()
    with clients(service, 100, HEAD + begun + b"\r\n") as connections:
        assert service.score(GOOD).status == 200
        assert service.memory_mb() - before < 20
        for connection in connections:
            assert last(connection).startswith(b"HTTP/1.1 " + status)


def test_small_chunks_and_endless_trailers_cost_little(service: Service) -> None:
    before = service.memory_mb(peak=True)
    head = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with clients(service, 1, head + b"2\r\n  \r\n" * 1_000_000 + b"0\r\n\r\n") as (connection,):
        assert last(connection).startswith(b"HTTP/1.1 400")
    trailer = clients(service, 1, head + b"2\r\n{}\r\n0\r\nX: ")
    with trailer as (connection,), suppress(ConnectionError):
        for _ in range(100):
            connection.sendall(b"x" * 1_000_000)
    assert service.logged(status=431)
    assert service.memory_mb(peak=True) - before < 40


def test_with_few_file_descriptors_idle_connections_make_room(
    linear_dir: Path, start: Callable[..., Service]
) -> None:
    service = start(linear_dir, command=("prlimit", "--nofile=200:200"))
    with clients(service, 1_000, b""):
        assert statistics.median(times(service, 1)) < HEALTHY
    assert service.request("GET", "/").status == 200


@pytest.mark.slow
def test_more_connections_than_a_worker_takes(
    linear_dir: Path, start: Callable[..., Service]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(hard - 1_000, 12_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
    try:
        service = start(linear_dir)
        before = service.memory_mb()
        with clients(service, count, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
            assert statistics.median(times(service, 2)) < HEALTHY
            assert service.memory_mb() - before < 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
