"""JSON lines on stdout, one for each request and one for each event."""

from __future__ import annotations

import os
import re
import traceback
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import orjson

_STDOUT = 1
_REQUEST_ID_HEADERS = (b"x-ms-request-id", b"x-request-id")
_NOT_IN_REQUEST_ID = re.compile(rb"[^A-Za-z0-9._:/+=@|-]")
_REQUEST_ID_LENGTH = 128
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's request id, without unsafe characters and at most 128 long, else a new one."""
    for name in _REQUEST_ID_HEADERS:
        given = headers.get(name)
        if given and (clean := _NOT_IN_REQUEST_ID.sub(b"", given)):
            return clean[:_REQUEST_ID_LENGTH].decode("ascii")
    return str(uuid.uuid4())


def traceparent_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The caller's W3C trace context (https://www.w3.org/TR/trace-context/), if well-formed."""
    given = headers.get(b"traceparent", b"")
    return given.decode("ascii") if _TRACEPARENT.fullmatch(given) else None


def log_request(
    request_id: str,
    status: int,
    duration_ms: float,
    *,
    method: str = "",
    path: str = "",
    traceparent: str | None = None,
    predictions: int = 0,
) -> None:
    """One line for a request. `duration_ms` runs from its headers to its answer.

    `status` is 499 where the client left before there was an answer.
    """
    _write(
        {
            "time": _now(),
            "request_id": request_id,
            "traceparent": traceparent,
            "predictions": predictions,
            "duration_ms": round(duration_ms, 3),
            "status": status,
            "method": method,
            "path": path[:256],
        }
    )


def log_event(event: str, **fields: Any) -> None:
    """One line for something other than a request."""
    _write({"time": _now(), "event": event, **fields})


def log_exception(request_id: str, error: BaseException) -> None:
    """One line for a bug of ours, with the traceback the client does not get."""
    lines = "".join(traceback.format_exception(error))
    log_event("error", request_id=request_id, error=repr(error), traceback=lines)


def _write(record: dict[str, Any]) -> None:
    line = orjson.dumps(record, default=str, option=orjson.OPT_APPEND_NEWLINE)
    # A log that cannot be written must not stop the service.
    with suppress(OSError):
        os.write(_STDOUT, line)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
