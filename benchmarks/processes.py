"""A contestant as a running process: its cold start, its memory, and its end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.contestants import Contestant
from benchmarks.environments import plain_environ
from benchmarks.memory import Memory, memory_of, tree
from benchmarks.subject import Rows
from scripts.errors import SlipwayError

_START_SECONDS = 60.0
_POLL_SECONDS = 0.002
_STOP_SECONDS = 10.0


class Running:
    """A contestant that answers. `cold_start` is seconds from its start to the first 200."""

    def __init__(self, contestant: Contestant, process: subprocess.Popen[bytes], port: int) -> None:
        self.contestant = contestant
        self.port = port
        self.cold_start = 0.0
        self._process = process

    def healthy(self) -> bool:
        """Whether its health answers 200."""
        try:
            return self._ask("GET", self.contestant.health, None)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def answer(self, rows: Rows) -> bytes:
        """Its answer to these rows. Raises SlipwayError if that is not what the model predicts."""
        content = self.contestant.request(rows)
        status, body = self._ask("POST", self.contestant.score, content)
        if status != 200:
            raise self._wrong(rows, f"status {status}: {body[:200]!r}")
        try:
            problem = rows.problem(self.contestant.predictions(json.loads(body)))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise self._wrong(rows, f"{type(error).__name__} in {body[:200]!r}") from error
        if problem:
            raise self._wrong(rows, problem)
        return body

    def memory(self) -> Memory:
        """What it holds now."""
        return memory_of(self._process.pid)

    def processor_seconds(self) -> float:
        """Processor time it has used so far, with all it started."""
        used = 0.0
        for process in tree(self._process.pid):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used += times.user + times.system
        return used

    def alive(self) -> bool:
        """Whether the process that was started still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it and all it started."""
        processes = tree(self._process.pid)
        if self.alive():
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait()
        psutil.wait_procs(processes, _STOP_SECONDS)

    def _ask(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = dict(self.contestant.headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _wrong(self, rows: Rows, problem: str) -> SlipwayError:
        return SlipwayError(
            f"{self.contestant.name} answers {len(rows)} rows wrongly: {problem}",
            "what answers wrongly is not measured; its log lies in build/bench/logs",
        )


@contextlib.contextmanager
def running(contestant: Contestant, core: int, log: Path) -> Iterator[Running]:
    """Start a contestant on one core, its output in `log`, and end it in the end.

    Raises SlipwayError if it is not healthy within a minute.
    """
    port = _free_port()
    environ = {**plain_environ(), **contestant.environ}
    if contestant.name == "mlserver":
        names = ("MLSERVER_HTTP_PORT", "MLSERVER_GRPC_PORT", "MLSERVER_METRICS_PORT")
        environ.update(zip(names, map(str, (port, _free_port(), _free_port())), strict=True))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        began = time.perf_counter()
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *contestant.command(port)],
            cwd=contestant.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            # Ctrl-C is for us alone, and what is started here ends here.
            start_new_session=True,
        )
    server = Running(contestant, process, port)
    try:
        while not server.healthy():
            if not server.alive() or time.perf_counter() - began > _START_SECONDS:
                raise SlipwayError(f"{contestant.name} does not start: {_last_line(log)}")
            time.sleep(_POLL_SECONDS)
        server.cold_start = time.perf_counter() - began
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else f"it said nothing; see {os.fspath(log)}"
