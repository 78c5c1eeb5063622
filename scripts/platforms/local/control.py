"""How verbs and the supervisor speak: JSON lines over a unix socket below build/service/.

The socket lies in the tree, so that a container in which the tree is mounted reaches it too.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from scripts.errors import SlipwayError

#: Raised whenever a supervisor that is still running would not understand its caller.
PROTOCOL = 1

#: Longest path a unix socket takes, with some to spare (Linux 108 bytes, macOS 104).
_LONGEST = 100

Message = dict[str, Any]


@contextmanager
def address(folder: Path) -> Iterator[str]:
    """A name of `folder`'s control socket that is short enough, however long the path is."""
    path = os.fspath(folder / "control.sock")
    if len(os.fsencode(path)) <= _LONGEST:
        yield path
        return
    if not os.path.isdir("/proc/self/fd"):
        raise SlipwayError(
            f"{path} is too long for a socket", "move the clone to a shorter path and deploy again"
        )
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/control.sock"
    finally:
        os.close(handle)


class Control:
    """A conversation with the supervisor; what it began and was not told to keep ends with it."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError if no supervisor listens."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address(folder) as name:
                self._socket.connect(name)
        except BaseException:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def ask(self, do: str, **fields: Any) -> Message:
        """What the supervisor answers; SlipwayError if it went away."""
        with suppress(OSError, ValueError):
            self._socket.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
            if line := self._lines.readline():
                answer: Message = json.loads(line)
                return answer
        raise SlipwayError(
            "the supervisor of the service went away",
            "see build/service/supervisor.log, then run the verb again",
        )

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
