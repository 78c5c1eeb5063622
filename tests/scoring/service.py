"""A real server process and a plain HTTP client for it."""

from __future__ import annotations

import http.client
import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}


@dataclass
class Answer:
    """An HTTP answer; header names are lower-case."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, after checking that it is one."""
        assert self.headers["content-type"] == "application/json"
        error: dict[str, Any] = self.json["error"]
        assert error["code"]
        assert error["message"]
        assert "\n" not in error["message"]
        return error


def environment(model_dir: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """A server's environment: ours without anything the service reads, plus `settings`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"SCORING_MODEL_DIR": str(model_dir), "WORKERS": "1"} | dict(settings)


def server_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "scoring.server", "--port", "0", *arguments]


class Service:
    """`python -m scoring.server`, healthy once constructed."""

    def __init__(
        self,
        model_dir: Path,
        settings: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        command: Sequence[str] = (),
    ) -> None:
        """`command` starts the server's own, as `prlimit` does."""
        self.process = subprocess.Popen(
            [*command, *server_command(*arguments)],
            cwd=ROOT,
            env=environment(model_dir, settings or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
        )
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.port: int = self.logged(event="listening")["port"]
        except AssertionError:
            self.stop()
            raise

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def logged(self, **wanted: Any) -> dict[str, Any]:
        """The next log line with these fields; lines before it are dropped."""
        while True:
            line = self._lines.get(timeout=20)
            if line is None:
                assert self.process.stderr
                raise AssertionError(f"no log line with {wanted}: {self.process.stderr.read()!r}")
            if all(line.get(name) == value for name, value in wanted.items()):
                return line

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = self.connect()
        try:
            return request(connection, method, path, body, headers)
        finally:
            connection.close()

    def score(self, document: Any, headers: Mapping[str, str] | None = None) -> Answer:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.request("POST", "/score", body, JSON | dict(headers or {}))

    def raw(self, content: bytes) -> Answer:
        """Send bytes, read until the server closes, and parse the one answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(content)
            return receive(connection)

    def workers(self) -> list[int]:
        """The processes that answer."""
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def memory_mb(self, *, peak: bool = False) -> float:
        """Resident memory of the worker that uses most, now or at its highest."""
        name = "VmHWM:" if peak else "VmRSS:"
        found = [Path(f"/proc/{pid}/status").read_text() for pid in self.workers()]
        return max(int(text.split(name)[1].split()[0]) for text in found) / 1000

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            for stream in (self.process.stdout, self.process.stderr):
                if stream:
                    stream.close()


def request(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection that stays open if the server lets it."""
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    names = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, names, response.read())


def receive(connection: socket.socket) -> Answer:
    """The answer on a socket, which the server must close after it."""
    content = b""
    while chunk := connection.recv(65536):
        content += chunk
    head, _, body = content.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    names = dict(line.lower().split(": ", 1) for line in lines)
    assert len(body) == int(names["content-length"])
    return Answer(int(first.split()[1]), names, body)
