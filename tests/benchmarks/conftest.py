"""A server that can be told to answer wrongly, as a contestant."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.contestants import Contestant
from benchmarks.environments import Environment
from benchmarks.subject import Rows, request_of

#: Doubles the first value of each row; every `argv[2]`-th answer is wrong, 0 is none. It keeps a
#: child, as servers with workers do.
SERVER = """
import json, subprocess, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, every, count = int(sys.argv[1]), int(sys.argv[2]), 0
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def log_message(self, *arguments):
        pass
    def do_GET(self):
        self.answer({})
    def do_POST(self):
        global count
        count += 1
        rows = json.loads(self.rfile.read(int(self.headers["content-length"])))["data"]
        wrong = every and count % every == 0
        self.answer({"id": count, "result": [0.5 if wrong else 2 * row[0] for row in rows]})
    def answer(self, content):
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

ROWS = Rows(["width"], [[1.0], [4.0]], [2.0, 8.0])


def doubler(folder: Path, every: int = 0, program: str = SERVER) -> Contestant:
    """The server as a contestant called `doubler`."""
    script = folder / "server.py"
    script.write_text(program)
    return Contestant(
        name="doubler",
        environment=Environment(Path(sys.prefix), {}),
        package=None,
        command=lambda port: [sys.executable, str(script), str(port), str(every)],
        folder=folder,
        environ={},
        health="/",
        score="/score",
        request=request_of,
        predictions=lambda answer: list(answer["result"]),
        part='"result":.*',
    )


@pytest.fixture
def answer() -> bytes:
    """What the server answers to ROWS, but for its id."""
    return json.dumps({"id": 0, "result": ROWS.expected}).encode()
