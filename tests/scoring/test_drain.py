"""SIGTERM: whoever has a connection is answered, whatever is new goes to the next server."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scoring.service import JSON, Service, request

BODY = json.dumps({"data": [[1, 2, 3]]}).encode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_without_connections_ends_at_once(
    regressor_dir: Path, start: Callable[..., Service], number: signal.Signals
) -> None:
    service = start(regressor_dir, {"GRACE_SECONDS": "60"})
    service.process.send_signal(number)
    assert service.process.wait(10) == 0
    assert service.process.stderr
    assert service.process.stderr.read() == b""


def test_open_connections_are_answered_once_more_and_new_ones_are_not_taken(
    regressor_dir: Path, start: Callable[..., Service]
) -> None:
    service = start(regressor_dir, {"GRACE_SECONDS": "60"})
    used, fresh = service.connect(), service.connect()
    assert "connection" not in request(used, "GET", "/").headers
    fresh.connect()
    service.process.terminate()
    service.logged(event="draining")
    refused = service.connect()
    with pytest.raises(ConnectionRefusedError):
        refused.connect()
    for connection in (used, fresh):
        answer = request(connection, "POST", "/score", BODY, JSON)
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        connection.close()
    assert service.process.wait(10) == 0


def test_what_is_in_flight_is_finished(drill_dir: Path, start: Callable[..., Service]) -> None:
    service = start(drill_dir, {"GRACE_SECONDS": "60"})
    connection = service.connect()
    connection.request("POST", "/score", b'{"data": [[0.5, "", null]]}', JSON)
    busy(service)
    service.process.terminate()
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["Connection"] == "close"
    assert json.loads(response.read()) == {"result": [0.5]}
    connection.close()
    assert service.process.wait(10) == 0


def busy(service: Service) -> None:
    """Return once the request sent before was seen, as one that came after it is answered."""
    assert service.request("GET", "/").status == 200


def test_the_grace_period_ends_even_with_idle_clients_and_a_stuck_model(
    drill_dir: Path, start: Callable[..., Service]
) -> None:
    service = start(drill_dir, {"GRACE_SECONDS": "0.3"})
    idle, stuck = service.connect(), service.connect()
    idle.connect()
    stuck.request("POST", "/score", b'{"data": [[600, "", null]]}', JSON)
    busy(service)
    service.process.terminate()
    assert service.process.wait(10) == 0
    idle.close()
    stuck.close()


def test_a_second_interrupt_ends_at_once(
    regressor_dir: Path, start: Callable[..., Service]
) -> None:
    service = start(regressor_dir, {"GRACE_SECONDS": "600"})
    idle = service.connect()
    idle.connect()
    busy(service)
    service.process.send_signal(signal.SIGINT)
    service.logged(event="draining")
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(10) == 0
    idle.close()


class Client(threading.Thread):
    """Sends one request after another, keeps its connection alive and never retries."""

    def __init__(self, port: int, stop: threading.Event, pause: float) -> None:
        super().__init__()
        self._port, self._stop_event, self._pause = port, stop, pause
        self.answered = 0
        self.failures: list[BaseException | int] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self._stop_event.is_set():
            try:
                connection.request("POST", "/score", BODY, JSON)
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(response.status)
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                connection.close()
            time.sleep(self._pause)
        connection.close()


def test_servers_replace_each_other_on_a_shared_socket_without_a_failure(
    regressor_dir: Path, start: Callable[..., Service]
) -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as shared:
        fd, port = shared.fileno(), shared.getsockname()[1]
        options = {"arguments": ("--fd", str(fd)), "pass_fds": (fd,)}
        old = start(regressor_dir, {"GRACE_SECONDS": "60"}, **options)
        clients = [Client(port, stop, pause) for pause in (0, 0, 0, 0.01, 0.05, 0.2)]
        for client in clients:
            client.start()
        try:
            for _ in range(4):
                new = start(regressor_dir, {"GRACE_SECONDS": "60"}, **options)
                assert new.request("GET", "/").status == 200
                old.process.terminate()
                assert old.process.wait(20) == 0
                old = new
        finally:
            stop.set()
            for client in clients:
                client.join()
    assert [client.failures for client in clients] == [[]] * len(clients)
    assert all(client.answered for client in clients)
