"""Which run a verb submitted last, and from what: a call after an interruption goes on with it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scripts.records import Records, write_atomic


class Marker:
    """`.runs/<verb>.json` beside the records."""

    def __init__(self, records: Records, verb: str) -> None:
        self._path = records.folder / ".runs" / f"{verb}.json"

    def read(self) -> dict[str, str] | None:
        """`inputs`, `run_id` and `experiment`; None where no run is known."""
        try:
            found = json.loads(self._path.read_text("utf-8"))
            return {name: str(found[name]) for name in ("inputs", "run_id", "experiment")}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, *, inputs: str, run_id: str, experiment: str) -> None:
        found = {"inputs": inputs, "run_id": run_id, "experiment": experiment}
        write_atomic(self._path, f"{json.dumps(found, indent=2)}\n".encode())

    def forget(self) -> None:
        """The run was seen to its end."""
        self._path.unlink(missing_ok=True)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let the block finish first where Ctrl-C or SIGTERM comes: what Azure began must be noted."""
    came: list[int] = []

    def later(number: int, frame: Any) -> None:
        came.append(number)

    before = {number: signal.signal(number, later) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])
