"""Azure ML's convention: `init()` and `run()`, alone and under Microsoft's own server."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scoring import score
from scoring.errors import InvalidData, NotJson
from tests.scoring.service import JSON, ROOT, Answer, request


@pytest.fixture
def initialised(regressor_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCORING_MODEL_DIR", raising=False)
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(regressor_dir))
    monkeypatch.setattr(score, "_scorer", None)
    score.init()


@pytest.mark.usefixtures("initialised")
def test_run_takes_text_bytes_and_objects() -> None:
    document = {"data": [[1, 2, 3]]}
    text = json.dumps(document)
    for raw_data in (text, text.encode(), document):
        assert score.run(raw_data) == {"result": pytest.approx([24])}


@pytest.mark.usefixtures("initialised")
def test_run_raises_what_the_service_would_answer() -> None:
    with pytest.raises(InvalidData, match="width"):
        score.run({"data": [["1", 2, 3]]})
    for raw_data in ("{", "\ud800", {"data": [[10**30, 2, 3]]}):
        with pytest.raises(NotJson):
            score.run(raw_data)


def test_run_before_init(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "_scorer", None)
    with pytest.raises(RuntimeError, match="init"):
        score.run("{}")


@pytest.fixture(scope="module")
def azureml_port(regressor_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Microsoft's server with our entry script, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("azureml") / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [
                Path(sys.executable).with_name("azmlinfsrv"),
                "--entry_script",
                "scoring/score.py",
                "--port",
                str(port),
            ],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "AZUREML_MODEL_DIR": str(regressor_dir)},
            stdout=stream,
            stderr=stream,
        )
    try:
        deadline = time.monotonic() + 60
        while not listening(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(20)


def listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def send(port: int, body: bytes) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        return request(connection, "POST", "/score", body, JSON)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b'{"data": [[1, 2, 3]]}', 200, {"result": pytest.approx([24])}),
        (b'{"data": [[1, 2]]}', 422, "invalid_data"),
        (b'{"data": [[1, "2", 3]]}', 422, "invalid_data"),
        (b'{"data"', 400, "not_json"),
    ],
)
def test_under_the_inference_server(
    azureml_port: int, body: bytes, status: int, expected: Any
) -> None:
    answer = send(azureml_port, body)
    assert answer.status == status
    assert answer.json == expected if status == 200 else answer.error["code"] == expected
