"""Whether a service that was just started may serve: healthy, and right about the sample request."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

from scripts.answers import Comparison, ask, compare
from scripts.errors import Refused
from scripts.route import way_to


def is_healthy(
    url: str, *, timeout: float = 5.0, version: int | None = None, certificate: str = ""
) -> bool:
    """Whether `GET /` is answered with 200 within `timeout` seconds, and by that version of a model.

    `certificate` is the service's own, to be trusted whoever signed it.
    """
    way = way_to(url, timeout, certificate)
    try:
        way.request("GET", "/", None, {"Connection": "close"})
        answer = way.connection.getresponse()
        if answer.status != 200 or version is None:
            return answer.status == 200
        return bool(json.loads(answer.read())["version"] == version)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False
    finally:
        way.connection.close()


def untrusted(url: str, *, timeout: float, certificate: str = "") -> str | None:
    """Why the certificate that `url` answers with is not trusted; None if it is, or nothing answers."""
    way = way_to(url, timeout, certificate)
    try:
        way.connection.connect()
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message)
    except (OSError, http.client.HTTPException):
        pass
    finally:
        way.connection.close()
    return None


def wait_healthy(
    url: str,
    *,
    timeout: float,
    alive: Callable[[], bool],
    each: float = 2.0,
    pause: float = 0.03,
    version: int | None = None,
    still: Callable[[float], None] | None = None,
    certificate: str = "",
) -> bool:
    """Ask until the service is healthy; False once `timeout` seconds passed or it is not `alive`.

    An answer may take `each` seconds and `pause` lies between two questions; with `version` the answer of
    another one, which leaves, does not count. `still` is told every half minute how many seconds have
    been waited.
    """
    began = time.monotonic()
    told = 0
    while (waited := time.monotonic() - began) < timeout:
        if is_healthy(url, timeout=each, version=version, certificate=certificate):
            return True
        if not alive():
            return False
        if still is not None and waited // 30 > told:
            told = int(waited // 30)
            still(waited)
        time.sleep(pause)
    return False


def prove(
    url: str, sample: Mapping[str, Any], headers: Mapping[str, str], certificate: str = ""
) -> Comparison:
    """Send `sample` (model.json's: request, result, tolerance) to `url` and judge the answer.

    Refused if its status, shape or values are wrong; SlipwayError if no answer comes.
    """
    comparison = compare(ask(url, sample["request"], headers, certificate), sample)
    if comparison.faults:
        raise Refused("; ".join(comparison.faults), "see the service's log")
    return comparison
