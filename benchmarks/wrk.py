"""Load from wrk, which compares every answer with the one that was checked before.

https://github.com/wg/wrk, SCRIPTING: `response` gets the whole body of every answer. Comparing it
costs wrk a few microseconds on a core of its own.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.errors import SlipwayError, UsageError

_SCRIPT = Path(__file__).with_suffix(".lua")
_RESULT = "result: "


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw; latencies in milliseconds."""

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    #: Answers that were not the expected one, byte for byte.
    wrong: int
    #: Connections that failed, were cut off or went unanswered for 10 s.
    broken: int
    #: Of wrk's own core, the part it was at work; near 1 the load was the limit, not the server.
    client_busy: float = 0.0


@dataclass(frozen=True)
class Call:
    """A request and its one right answer, in files for wrk.

    Where an answer holds something new each time, `part` is the Lua pattern of what is compared.
    """

    url: str
    headers: Mapping[str, str]
    request: Path
    expected: Path
    part: str


def require_wrk() -> None:
    """Raise UsageError if there is no wrk."""
    if not shutil.which("wrk"):
        raise UsageError(
            "the benchmark needs wrk, and there is none on PATH",
            "run `apt-get install wrk` (Debian, Ubuntu), or use RUNNER=container, whose toolbox has it",
        )


def run_wrk(call: Call, connections: int, seconds: float, core: int) -> Load:
    """Repeat `call` on so many connections for so many seconds (whole ones), from one core."""
    headers = [f"--header={name}: {value}" for name, value in call.headers.items()]
    before = _time_of_children()
    done = subprocess.run(
        [
            *("taskset", "--cpu-list", str(core)),
            *("wrk", "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{seconds:.0f}s", "--timeout", "10s", "--script", str(_SCRIPT)),
            *headers,
            *(call.url, "--", str(call.request), str(call.expected), call.part),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SlipwayError(f"wrk failed on {call.url}: {done.stderr.strip()[-300:]}")
    return replace(parse(done.stdout), client_busy=(_time_of_children() - before) / seconds)


def _time_of_children() -> float:
    """Seconds of processor time of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def parse(output: str) -> Load:
    """What the script's last line says. Raises SlipwayError if there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith(_RESULT):
            return Load(**json.loads(line.removeprefix(_RESULT)))
    raise SlipwayError(f"wrk gave no result: {output.strip()[-300:]}")
