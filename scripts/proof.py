"""Whether a service that was just started may serve: healthy, and right about the sample request."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from scripts.answers import Comparison, ask, compare
from scripts.errors import Refused


def is_healthy(url: str, *, timeout: float = 5.0) -> bool:
    """Whether `GET /` is answered with 200 within `timeout` seconds."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_healthy(url: str, *, timeout: float, alive: Callable[[], bool]) -> bool:
    """Ask until the service is healthy; False once `timeout` seconds passed or it is not `alive`."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if is_healthy(url, timeout=2.0):
            return True
        if not alive():
            return False
        time.sleep(0.03)
    return False


def prove(url: str, sample: Mapping[str, Any], headers: Mapping[str, str]) -> Comparison:
    """Send `sample` (model.json's: request, result, tolerance) to `url` and judge the answer.

    Refused if its status, shape or values are wrong; SlipwayError if no answer comes.
    """
    comparison = compare(ask(url, sample["request"], headers), sample)
    if comparison.faults:
        raise Refused("; ".join(comparison.faults), "see the service's log")
    return comparison
