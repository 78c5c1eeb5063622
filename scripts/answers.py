"""Ask the service, and hold its answer against the one recorded when the model was packaged."""

from __future__ import annotations

import http.client
import json
import math
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from scripts.errors import SlipwayError
from scripts.route import way_to

#: Seconds one answer may take.
ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Comparison:
    """How an answer differs from the recorded one; `max_difference` is None where none can be told."""

    faults: tuple[str, ...]
    predictions: int
    max_difference: float | None


def ask(
    url: str, request: Mapping[str, Any], headers: Mapping[str, str], certificate: str = ""
) -> Answer:
    """POST `request` to `url`/score; SlipwayError if nothing answers.

    `certificate` is the service's own, to be trusted whoever signed it.
    """
    way = way_to(url, ANSWER_SECONDS, certificate)
    try:
        way.request(
            "POST",
            f"{urlsplit(url).path.rstrip('/')}/score",
            json.dumps(request),
            {"Content-Type": "application/json", **headers},
        )
        response = way.connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())
    except ssl.SSLCertVerificationError as error:
        raise SlipwayError(
            f"the certificate of {url} is not trusted: {error.verify_message}",
            (
                "`make deploy FORCE=1` if it was renewed in the vault; else set EXTRA_CA to a file with"
                " its authority's certificate"
                if certificate
                else "set EXTRA_CA to a file with its authority's certificate"
            ),
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SlipwayError(
            f"the service at {url} does not answer: {reason}",
            "look at `make status` and `make logs`; `make deploy FORCE=1` starts it again",
        ) from error
    finally:
        way.connection.close()


def compare(answer: Answer, sample: Mapping[str, Any]) -> Comparison:
    """Status, shape and values of an answer to the sample request."""
    if answer.status != 200:
        said = answer.body[:200].decode("utf-8", "replace").strip()
        return Comparison((f"status {answer.status}: {said}",), 0, None)
    try:
        result = json.loads(answer.body)["result"]
    except (ValueError, KeyError, TypeError):
        return Comparison(("the answer is not JSON with a result",), 0, None)
    expected = sample["result"]
    if not isinstance(result, list) or len(result) != len(expected):
        count = len(result) if isinstance(result, list) else 0
        return Comparison((f"{count} results for {len(expected)} rows",), count, None)
    distance = difference(result, expected)
    if math.isinf(distance):
        return Comparison(("results are not those recorded at packaging",), len(result), None)
    faults: tuple[str, ...] = ()
    if distance > sample["tolerance"]:
        faults = (
            f"results differ by {distance:.3g} from those recorded at packaging"
            f" (tolerance {sample['tolerance']:g})",
        )
    return Comparison(faults, len(result), distance)


def difference(result: Sequence[Any], expected: Sequence[Any]) -> float:
    """The greatest distance between two results of one length, in the target's unit.

    Infinite where labels differ or a number is missing.
    """
    greatest = 0.0
    for found, recorded in zip(result, expected, strict=True):
        if isinstance(recorded, bool) or not isinstance(recorded, int | float):
            distance = 0.0 if found == recorded else math.inf
        elif isinstance(found, bool) or not isinstance(found, int | float):
            distance = math.inf
        else:
            distance = abs(found - recorded)
        greatest = max(greatest, math.inf if math.isnan(distance) else distance)
    return greatest
