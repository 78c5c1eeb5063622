"""Several workers: one that dies takes only its own requests with it, and none outlives the parent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from sklearn.ensemble import RandomForestRegressor

from scoring.settings import available_cpus
from tests.scoring import bundles
from tests.scoring.service import JSON, ROOT, Service, environment, server_command

QUICK = json.dumps({"data": [[1, 2, 3]]}).encode()


def slow(seconds: float) -> bytes:
    return json.dumps({"data": [[seconds, "", None]]}).encode()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def spread(service: Service, count: int) -> dict[int, HTTPConnection]:
    """A connection to each of `count` workers, by the worker's pid."""
    found: dict[int, HTTPConnection] = {}
    spare = []

    def look() -> bool:
        connection = service.connect()
        connection.connect()
        connection.request("GET", "/")
        connection.getresponse().read()
        pid = worker_of(service, connection)
        if found.setdefault(pid, connection) is not connection:
            spare.append(connection)
        return len(found) == count

    wait_for(look)
    for connection in spare:
        connection.close()
    return found


def worker_of(service: Service, connection: HTTPConnection) -> int:
    """The worker at the other end of a connection."""
    assert connection.sock
    port = connection.sock.getsockname()[1]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = f":{service.port:04X}", f":{port:04X}"
    found = [f"socket:[{each[9]}]" for each in lines if (each[1][-5:], each[2][-5:]) == ends]
    for pid in service.workers():
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                if os.readlink(entry) in found:
                    return pid
    raise AssertionError("no worker has this connection")


def answered(connection: HTTPConnection) -> int:
    """The status on a connection, 0 if it broke."""
    try:
        response = connection.getresponse()
        response.read()
        return response.status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()


def test_a_killed_worker_takes_only_its_own_requests_and_is_replaced(
    drill_dir: Path, start: Callable[..., Service]
) -> None:
    service = start(drill_dir, {"WORKERS": "3"})
    before = set(service.workers())
    connections = spread(service, 3)
    for connection in connections.values():
        connection.request("POST", "/score", slow(1), JSON)
    time.sleep(0.2)
    victim = next(iter(connections))
    os.kill(victim, signal.SIGKILL)
    statuses = {pid: answered(connection) for pid, connection in connections.items()}
    assert statuses == {pid: 0 if pid == victim else 200 for pid in connections}
    assert service.logged(event="worker_died")["pid"] == victim
    wait_for(lambda: len(service.workers()) == 3)
    assert len(before & set(service.workers())) == 2


def test_however_often_workers_are_killed_the_service_goes_on(
    regressor_dir: Path, start: Callable[..., Service]
) -> None:
    service = start(regressor_dir, {"WORKERS": "2"})
    for _ in range(6):
        wait_for(lambda: bool(service.workers()))
        os.kill(service.workers()[0], signal.SIGKILL)
        service.logged(event="worker_died")
        assert service.score(QUICK).status == 200
    wait_for(lambda: len(service.workers()) == 2)


def test_no_worker_outlives_its_parent(drill_dir: Path, start: Callable[..., Service]) -> None:
    service = start(drill_dir, {"WORKERS": "2", "GRACE_SECONDS": "10"})
    workers = service.workers()
    connection = service.connect()
    connection.request("POST", "/score", slow(0.5), JSON)
    time.sleep(0.1)
    service.process.kill()
    assert answered(connection) == 200
    wait_for(lambda: not any(map(is_alive, workers)))


def test_sigterm_finishes_what_is_in_flight_on_all_workers(
    drill_dir: Path, start: Callable[..., Service]
) -> None:
    service = start(drill_dir, {"WORKERS": "2", "GRACE_SECONDS": "20"})
    workers = service.workers()
    connections = spread(service, 2).values()
    for connection in connections:
        connection.request("POST", "/score", slow(1), JSON)
    time.sleep(0.2)
    service.process.terminate()
    assert [answered(connection) for connection in connections] == [200, 200]
    assert service.process.wait(10) == 0
    assert not any(map(is_alive, workers))


@pytest.mark.parametrize(("grace", "signals"), [("0.3", 1), ("600", 2)])
def test_a_stuck_model_keeps_nobody_from_ending(
    drill_dir: Path, start: Callable[..., Service], grace: str, signals: int
) -> None:
    service = start(drill_dir, {"WORKERS": "2", "GRACE_SECONDS": grace})
    workers = service.workers()
    connections = list(spread(service, 2).values())
    for connection in connections:
        connection.request("POST", "/score", slow(600), JSON)
    time.sleep(0.2)
    service.process.terminate()
    service.logged(event="draining")
    if signals == 2:
        service.process.terminate()
    assert service.process.wait(10) == 0
    assert not any(map(is_alive, workers))
    assert [answered(connection) for connection in connections] == [0, 0]


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8])
def test_sigterm_at_any_moment_of_the_start(drill_dir: Path, pause: float) -> None:
    with subprocess.Popen(
        server_command(),
        cwd=ROOT,
        env=environment(drill_dir, {"WORKERS": "8"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        time.sleep(pause)
        process.terminate()
        stdout, stderr = process.communicate(timeout=20)
    # Python itself is not up in the first moments, and dies of the signal as any program does.
    assert process.returncode in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
    assert stderr == b""
    assert b'"error"' not in stdout


def test_sigterm_while_workers_are_being_replaced(
    regressor_dir: Path, start: Callable[..., Service]
) -> None:
    for index in range(5):
        service = start(regressor_dir, {"WORKERS": "4"})
        time.sleep(1.2 if index == 0 else 0)
        for pid in service.workers():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.001 * index)
        service.process.terminate()
        assert service.process.wait(10) == 0


def test_a_log_that_nobody_reads_stops_neither_answers_nor_the_end(regressor_dir: Path) -> None:
    with subprocess.Popen(
        server_command(),
        cwd=ROOT,
        env=environment(regressor_dir, {"WORKERS": "2", "GRACE_SECONDS": "0.3"}),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        port = json.loads(process.stdout.readline())["port"]
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                for _ in range(2000):  # a pipe takes 64 kB
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_load_is_spread_over_the_workers(drill_dir: Path, start: Callable[..., Service]) -> None:
    service = start(drill_dir, {"WORKERS": "2"})
    taken: Counter[int] = Counter()
    lock = threading.Lock()

    def client(_: int) -> None:
        connection = service.connect()
        connection.request("POST", "/score", slow(0.05), JSON)
        response = connection.getresponse()
        response.read()
        assert response.status in (200, 503)
        pid = worker_of(service, connection)
        connection.close()
        with lock:
            taken[pid] += 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(client, range(80)))
    assert len(taken) == 2
    assert min(taken.values()) >= 8


def test_numeric_libraries_start_no_threads_of_their_own(
    tmp_path: Path, regressor_dir: Path, start: Callable[..., Service]
) -> None:
    greedy = RandomForestRegressor(200, n_jobs=-1)
    folders = {
        "linear": bundles.linear_regressor(tmp_path / "linear"),
        "onnx": regressor_dir,
        "forest": bundles.sklearn_regressor(tmp_path / "forest", greedy),
    }
    body = json.dumps({"data": [[1, 2, 3]] * 5000}).encode()
    threads = {}
    for name, folder in folders.items():
        service = start(folder, {"WORKERS": "1", "REQUEST_TIMEOUT": "60"})
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(service.score, body) for _ in range(4)]
            most = 0
            while not all(answer.done() for answer in answers):
                (pid,) = service.workers()
                most = max(most, len(os.listdir(f"/proc/{pid}/task")))
                time.sleep(0.005)
            assert all(answer.result().status == 200 for answer in answers)
        threads[name] = most
    # The event loop's, the model's and the log's. joblib's own for n_jobs=-1 does no work beside.
    assert threads["linear"] <= 3
    assert threads["onnx"] <= 3
    assert threads["forest"] <= 4


def test_workers_are_as_many_as_the_cpus_given(
    tmp_path: Path, regressor_dir: Path, start: Callable[..., Service]
) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(allowed[0]), *server_command()]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(regressor_dir, {"WORKERS": ""}),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        workers = json.loads(process.stdout.readline())["workers"]
        process.terminate()
    assert workers == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({}, None),
    ],
)
def test_a_control_groups_quota_counts(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert available_cpus(tmp_path) == (expected or len(os.sched_getaffinity(0)))
