"""Time and queue limits, and that nobody waits behind a slow model."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.scoring.service import Answer, Service

SLOW = json.dumps({"data": [[1.0, "", None]]}).encode()
QUICK = json.dumps({"data": [[0, "", None]]}).encode()


def test_health_does_not_wait_behind_the_model(drills: Service) -> None:
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(drills.score, SLOW)
        while not slow.done():
            answered = drills.request("GET", "/")
            assert answered.status == 200
            if not slow.done():
                break
        else:
            raise AssertionError("health answered only after the model")
        assert drills.score(b"{").status == 400
        assert slow.result().json == {"result": [1.0]}


def test_too_long_is_504_and_what_waited_in_vain_is_dropped(
    drill_dir: Path, start: Callable[..., Service]
) -> None:
    service = start(drill_dir, {"REQUEST_TIMEOUT": "0.4"})
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(service.score, [SLOW] * 4))
    for answer in answers:
        assert answer.status == 504
        assert answer.error["code"] == "took_too_long"
    # One still sleeps; the other three were never started, or this would take longer.
    assert eventually(service, QUICK).status == 200


def eventually(service: Service, body: bytes) -> Answer:
    for _ in range(3):
        answer = service.score(body)
        if answer.status == 200:
            break
        time.sleep(0.4)
    return answer


def test_a_full_queue_is_503_at_once(drill_dir: Path, start: Callable[..., Service]) -> None:
    service = start(drill_dir, {"QUEUE_SIZE": "2"})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(service.score, [SLOW] * 8))
    assert sorted(answer.status for answer in answers) == [200] * 3 + [503] * 5
    for answer in answers:
        if answer.status == 503:
            assert answer.error["code"] == "queue_full"
            assert answer.headers["retry-after"] == "1"
    assert service.score(QUICK).status == 200


def test_answers_go_to_whom_they_belong(regressor: Service) -> None:
    def check(worker: int) -> None:
        connection = regressor.connect()
        for index in range(50):
            value = worker * 1000 + index
            body = json.dumps({"data": [[value, 0, 0]]}).encode()
            headers = {"Content-Type": "application/json", "X-Request-Id": str(value)}
            connection.request("POST", "/score", body, headers)
            response = connection.getresponse()
            assert response.headers["X-Request-Id"] == str(value)
            assert round(json.loads(response.read())["result"][0]) == 2 * value + 1
        connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, range(8)))


def test_large_requests_leave_no_memory_behind(
    regressor_dir: Path, start: Callable[..., Service]
) -> None:
    service = start(regressor_dir)
    body = json.dumps({"data": [[0.123456, 1.234567, 2.345678]] * 60_000}).encode()
    with ThreadPoolExecutor(4) as pool:
        assert {each.status for each in pool.map(service.score, [body] * 8)} == {200}
        before = service.memory_mb(peak=True)
        assert {each.status for each in pool.map(service.score, [body] * 150)} == {200}
    assert service.memory_mb(peak=True) < before + 40


def test_bodies_under_way_are_bounded_together(
    regressor_dir: Path, start: Callable[..., Service]
) -> None:
    service = start(regressor_dir, {"MAX_BODY_BYTES": "100000", "BODY_TIMEOUT": "60"})
    head = (
        b"POST /score HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    )
    senders = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(17)]
    for sender in senders:
        sender.sendall(head + b" " * 99_000)
    assert service.logged(status=503)
    large = b'{"data": [[1, 2, 3]]}' + b" " * 60_000
    assert service.score(large).error["code"] == "queue_full"
    assert service.score({"data": [[1, 2, 3]]}).status == 200
    for sender in senders:
        sender.close()
    assert eventually(service, large).status == 200


def test_nobody_waits_behind_a_call_that_does_not_end(
    drill_dir: Path, start: Callable[..., Service]
) -> None:
    service = start(drill_dir, {"QUEUE_SECONDS": "0.2"})
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(service.score, json.dumps({"data": [[3.0, "", None]]}).encode())
        time.sleep(0.5)
        assert service.score(QUICK).status == 503
        assert stuck.result().status == 200
    assert service.score(QUICK).status == 200
