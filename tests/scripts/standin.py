"""A release as the verbs that look at it find one: records, a bundle, and a service on loopback.

The service speaks real HTTP and can be told to misbehave, which a healthy one cannot.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scripts.errors import UsageError
from scripts.platforms.base import Deployment, Endpoint, ModelVersion

KILN = Path(__file__).parent / "kiln"
INPUTS = "51aa51aa51aa51aa"
KEY = "swordfish-41"
#: Hours that the stand-in predicts for a row: its thickness times its start moisture.
ROWS = [["spruce", 38.0, 0.5, 62.5], ["oak", 50.0, 0.25, 58.0], ["ash", 24.0, 0.75, 66.0]]


def predict(rows: Sequence[Sequence[Any]]) -> list[float]:
    return [row[1] * row[2] for row in rows]


SAMPLE = {"request": {"data": ROWS}, "result": predict(ROWS), "tolerance": 1e-6}


class StandIn(ThreadingHTTPServer):
    """The service; `faults` names what it does wrong, `key` what it asks for."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, *faults: str, key: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults = set(faults)
        self.key = key
        self.lines: list[str] = ["not JSON at all {"]
        self.seconds = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers as the scoring service does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: StandIn

    def do_POST(self) -> None:
        faults = self.server.faults
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"]
        status, answer = 200, {"result": predict(rows)}
        if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            status, answer = 401, {"error": {"code": "unauthorized", "message": "send the key"}}
        elif "status" in faults:
            status, answer = 500, {"error": {"code": "internal", "message": "boom"}}
        elif "values" in faults:
            answer = {"result": [value + 3 for value in predict(rows)]}
        elif "shape" in faults or ("batches" in faults and len(rows) > 3):
            answer = {"result": predict(rows)[:-1]}
        time.sleep(self.server.seconds)
        request_id = "another" if "echo" in faults else self.headers["X-Request-Id"]
        line = {
            "request_id": self.headers["X-Request-Id"],
            "traceparent": None if "trace" in faults else self.headers["traceparent"],
            "predictions": len(rows),
            "status": status,
        }
        if "silent" not in faults:
            self.server.lines.append(f"2025-03-14 {json.dumps(line)}")
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Request-Id", str(request_id))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(*faults: str, key: str | None = None) -> Iterator[StandIn]:
    """A stand-in that answers until the block ends."""
    server = StandIn(*faults, key=key)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def deployment(url: str, number: int = 7, *, serves: bool = True, version: int = 4) -> Deployment:
    return Deployment(
        number=number,
        model_name="kiln-hours",
        version=version,
        inputs=INPUTS,
        image_id=None,
        kind="process",
        url=url,
        inner_url=None,
        previous=number - 1,
        rejected=None,
        serving=serves,
        healthy=serves,
        started="2025-03-14T09:04:11Z",
    )


class Platform:
    """The parts of a platform that the verbs here read."""

    name = "local"

    def __init__(
        self,
        server: StandIn | None = None,
        url: str | None = None,
        versions: Sequence[ModelVersion] | Exception = (),
        log_delay: float | None = None,
    ) -> None:
        self.log_delay = log_delay
        self.server = server
        self.url = server.url if server else url
        self.found = versions
        self.service = self.tracking = self

    def history(self) -> list[Deployment]:
        if self.url is None:
            return []
        return [deployment(self.url), deployment(self.url, 6, serves=False, version=3)]

    def endpoint(self) -> Endpoint:
        if self.url is None:
            raise UsageError("nothing is deployed", "run `make deploy` first")
        return Endpoint(self.url, {"Authorization": f"Bearer {KEY}"})

    def described(self, deployment: Deployment) -> bytes | None:
        return None

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        yield from self.server.lines if self.server else ()

    def versions(self, name: str) -> Sequence[ModelVersion]:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


class Clone:
    """A clone with a packaged model, its records where a test asks for them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.records = root / "build" / "local"
        self.monkeypatch = monkeypatch
        monkeypatch.setenv("SLIPWAY_ROOT", str(root))
        (root / "model").mkdir()
        (root / "model" / "defaults.env").write_text(
            "MODEL_NAME=kiln-hours\nDATA_PATH=data/kiln.csv\n"
        )
        model = root / "build" / "bundles" / INPUTS / "model"
        model.mkdir(parents=True)
        (model / "model.json").write_text(json.dumps({"name": "kiln-hours", "sample": SAMPLE}))

    def on(self, module: str, platform: Platform) -> None:
        """Let the verb in `module` find `platform`."""
        self.monkeypatch.setattr(f"scripts.{module}.connect", lambda root, settings: platform)

    def release(self) -> None:
        """Put the records of a finished release in place."""
        self.records.mkdir(parents=True, exist_ok=True)
        for path in KILN.glob("*.json"):
            shutil.copy(path, self.records)

    def record(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.records / f"{name}.json").read_text())
        return found

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        self.records.mkdir(parents=True, exist_ok=True)
        (self.records / f"{name}.json").write_text(json.dumps(record))

    def fail(self, verb: str, code: int, message: str, mend: str, **figures: Any) -> None:
        """Let `verb` have failed last."""
        (self.records / f"{verb}.json").unlink(missing_ok=True)
        envelope = {"verb": verb, "outcome": "failed", "code": code, "message": message}
        when = {"time": "2025-03-14T10:00:00Z", "duration_seconds": 1.5}
        self.write(f"{verb}.failed", {**envelope, "mend": mend, **figures, **when})
