"""Who listens on a port of this machine."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from scripts.errors import UsageError

_LISTEN = "0A"


def listen(port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1:`port` (0: any free one); UsageError if it is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise port_taken(port, holder(port)) from None
        raise UsageError(
            f"SCORING_PORT={port} cannot be used: {error.strerror}", "set another SCORING_PORT"
        ) from None
    return sock


def port_taken(port: int, who: str | None) -> UsageError:
    return UsageError(
        f"SCORING_PORT={port} is taken by {who or 'another program'}",
        "stop that, or set SCORING_PORT to a free port in .env",
    )


def holder(port: int) -> str | None:
    """`pid 123 (name)` of the process that listens on `port`, where this process may see it."""
    inodes = _listening(port)
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        if any(link in inodes for link in _links(process / "fd")):
            return f"pid {process.name} ({_name(process)})"
    return None


def _links(folder: Path) -> Iterator[str]:
    """What a process has open; nothing where it is another user's, or gone."""
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):
                yield os.readlink(folder / name)


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "?"


def _listening(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found
