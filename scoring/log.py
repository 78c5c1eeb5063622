"""JSON lines on stdout, one for each request and one for each event."""

from __future__ import annotations

import os
import random
import re
import select
import stat
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import orjson

_STDOUT = 1
_REQUEST_ID_HEADERS = (b"x-ms-request-id", b"x-request-id")
_NOT_IN_REQUEST_ID = re.compile(rb"[^A-Za-z0-9._:/+=@|-]")
_REQUEST_ID_LENGTH = 128
_KEPT = 20_000
_PAUSE = 0.05  # seconds; each time the thread runs, requests wait for it
_LONGEST_CHUNK = 65_536
_LONGEST_WAIT = 0.2  # seconds
_LONGEST_TRACEBACK = 2_500  # with the rest of the line below PIPE_BUF

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's request id, without unsafe characters and at most 128 long, else a new one."""
    for name in _REQUEST_ID_HEADERS:
        given = headers.get(name)
        if given and (clean := _NOT_IN_REQUEST_ID.sub(b"", given)):
            return clean[:_REQUEST_ID_LENGTH].decode("ascii")
    return new_request_id()


def new_request_id() -> str:
    """32 hex digits at random; Python seeds each worker's generator anew after the fork."""
    return f"{random.getrandbits(128):032x}"


def traceparent_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The caller's W3C trace context (https://www.w3.org/TR/trace-context/), if well-formed."""
    given = headers.get(b"traceparent")
    return given.decode("ascii") if given and _TRACEPARENT.fullmatch(given) else None


def log_event(event: str, **fields: Any) -> None:
    """One line for something other than a request; lost if nobody reads the log."""
    line = orjson.dumps(
        {"time": _now(), "event": event, **fields}, default=str, option=orjson.OPT_APPEND_NEWLINE
    )
    # A reader that stopped must not keep the service from answering, nor from ending.
    with suppress(OSError, ValueError):
        if select.select([], [_STDOUT], [], _LONGEST_WAIT)[1]:
            os.write(_STDOUT, line)


def log_exception(request_id: str, error: BaseException) -> None:
    """One line for a bug of ours, with the traceback the client does not get."""
    lines = "".join(traceback.format_exception(error))
    log_event(
        "error",
        request_id=request_id,
        error=repr(error)[:500],
        traceback=lines[-_LONGEST_TRACEBACK:],
    )


class RequestLog:
    """Lines for requests, written by a thread so that no answer waits for whoever reads the log.

    What a reader does not take is kept up to `_KEPT` lines; what comes after is dropped and counted.
    """

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._wake = threading.Event()
        self._ending = False
        self._second = 0
        self._stamp = ""
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def write(
        self,
        request_id: str,
        status: int,
        seconds: float,
        *,
        method: str = "",
        path: str = "",
        traceparent: str | None = None,
        predictions: int = 0,
    ) -> None:
        """One line for a request. `seconds` run from its end to its answer.

        `request_id`, `traceparent` and `method` are of safe characters, as `request_id_of`,
        `traceparent_of` and the HTTP parser give them; `path` may be anything. `status` is 499
        where the client left before there was an answer.
        """
        if len(self._lines) >= _KEPT:
            self._dropped += 1
            return
        # Written by hand: of all that a request costs here, a JSON library's part would be the
        # second largest. Only a path may hold what JSON must escape.
        trace = f'"{traceparent}"' if traceparent else "null"
        target = f'"{path}"' if path == "/score" else _quoted(path)
        microseconds = int(seconds * 1e6)
        self._lines.append(
            f'{{"time":"{self._time()}","request_id":"{request_id}","traceparent":{trace},'
            f'"predictions":{predictions},'
            f'"duration_ms":{microseconds // 1000}.{microseconds % 1000:03},'
            f'"status":{status},"method":"{method}","path":{target}}}\n'.encode()
        )
        if not self._wake.is_set():
            self._wake.set()

    def close(self, timeout: float = 1.0) -> None:
        """Write what is left, but wait no longer than `timeout` seconds for it."""
        self._ending = True
        self._wake.set()
        self._thread.join(timeout)

    def _time(self) -> str:
        """The present in UTC to the millisecond; only the milliseconds are new each time."""
        present = time.time()
        second = int(present)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._stamp}.{int((present - second) * 1000):03}Z"

    def _work(self) -> None:
        while not self._ending or self._lines:
            self._wake.wait()
            if not self._ending:
                time.sleep(_PAUSE)  # gathers what comes meanwhile
            self._wake.clear()
            for chunk in _chunks(self._lines):
                _put(chunk)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                log_event("log_dropped", lines=dropped)


def _quoted(path: str) -> str:
    return orjson.dumps(path[:256]).decode()


def _chunks(lines: deque[bytes]) -> Iterator[bytes]:
    """Whole lines, together no longer than what several processes may write to a pipe at once."""
    longest = select.PIPE_BUF if _is_pipe() else _LONGEST_CHUNK
    chunk: list[bytes] = []
    size = 0
    while lines:
        line = lines.popleft()
        if chunk and size + len(line) > longest:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    yield b"".join(chunk)


def _is_pipe() -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(_STDOUT).st_mode)
    except OSError:
        return False


def _put(line: bytes) -> None:
    # A log that cannot be written must not stop the service.
    with suppress(OSError):
        os.write(_STDOUT, line)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
