"""A process that records requests in a forked child, as the service's workers do.

Takes a JSON list of the arguments of `Telemetry.record` on standard input; the contract is
toy version 7. Says on standard output where it connected to, and on what.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from scoring.contract import Column, Contract, Sample
from scoring.errors import StartError
from scoring.telemetry import connect, prepare

CONTRACT = Contract(
    name="toy",
    version=7,
    kind="regressor",
    target="price",
    columns=[Column("width", "number")],
    runtime="linear",
    file="linear.json",
    sha256="0" * 64,
    sample=Sample({}, []),
)


def main() -> None:
    requests = json.load(sys.stdin)
    try:
        prepare(os.environ, CONTRACT)
    except StartError as error:
        sys.exit(_say(error))
    child = os.fork()
    if child == 0:
        os._exit(_work(requests))
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def _work(requests: list[dict[str, Any]]) -> int:
    seen: dict[str, list[Any]] = {"connect": [], "resolve": [], "write": []}
    sys.addaudithook(lambda event, details: _watch(seen, event, details))
    try:
        telemetry = connect(os.environ, CONTRACT)
    except StartError as error:
        return _say(error)
    if telemetry is not None:
        took = [_timed(telemetry.record, request) for request in requests]
        started = time.monotonic()
        telemetry.shutdown(float(os.environ.get("SHUTDOWN_SECONDS", "20")))
        seen["took"] = [*took, time.monotonic() - started]
    packages = {name.split(".")[0] for name in sys.modules}
    seen["packages"] = sorted(packages & {"opentelemetry", "azure", "requests"})
    print(json.dumps({"event": "seen", **seen}), flush=True)
    return 0


def _say(error: StartError) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def _timed(call: Any, arguments: dict[str, Any]) -> float:
    started = time.monotonic()
    call(**arguments)
    return time.monotonic() - started


def _watch(seen: dict[str, list[Any]], event: str, details: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        seen["connect"].append(list(details[1]))
    elif event == "socket.getaddrinfo":
        seen["resolve"].append(details[0])
    elif event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR):
        seen["write"].append(str(details[0]))


if __name__ == "__main__":
    main()
