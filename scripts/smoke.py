"""`make smoke`: one request, followed through the answer and the service's log."""

from __future__ import annotations

import json
import secrets
import sys
import time
import uuid
from collections.abc import Mapping
from typing import Any

from scripts import console
from scripts.answers import ask, compare
from scripts.errors import Refused
from scripts.platforms import connect
from scripts.platforms.base import Service
from scripts.served import served_model
from scripts.verb import Context, Result, run_verb

#: Seconds the log line may take to show up where lines are not late.
LOG_SECONDS = 5.0
#: Seconds between two looks at the log, where it is near and where it is far.
NEAR, FAR = 0.2, 5.0


def new_traceparent() -> str:
    """A sampled W3C trace context, version 00 (https://www.w3.org/TR/trace-context/)."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def find_log_line(service: Service, request_id: str) -> dict[str, Any] | None:
    """The service's log line of that request; None if it has not come in time."""
    late = service.log_delay
    deadline = time.monotonic() + (LOG_SECONDS if late is None else late)
    while True:
        for text in service.logs():
            if request_id in text and (line := _parsed(text)).get("request_id") == request_id:
                return line
        if time.monotonic() >= deadline:
            return None
        time.sleep(NEAR if late is None else FAR)


def _parsed(text: str) -> dict[str, Any]:
    """The JSON object in a log line, whatever stands before it."""
    try:
        found = json.loads(text[text.index("{") :])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def log_faults(line: Mapping[str, Any] | None, expected: Mapping[str, Any]) -> list[str]:
    """What the log line lacks or has otherwise, in words."""
    if line is None:
        return [f"the service logged no line for request {expected['request_id']}"]
    return [
        f"its log line has {name} {line.get(name)!r}, not {value!r}"
        for name, value in expected.items()
        if line.get(name) != value
    ]


def run(context: Context) -> Result:
    """Ask what serves now; Refused, with every figure kept, if anything is not as it should be."""
    service = connect(context.root, context.settings).service
    deployment, model = served_model(context.root, service)
    sample, endpoint = model["sample"], service.endpoint()
    request_id, traceparent = str(uuid.uuid4()), new_traceparent()
    rows = len(sample["request"]["data"])
    console.step(f"asking {endpoint.url} for {rows} predictions")
    answer = ask(
        endpoint.url,
        sample["request"],
        {**endpoint.headers, "X-Request-Id": request_id, "traceparent": traceparent},
        endpoint.certificate,
    )
    comparison = compare(answer, sample)
    faults = list(comparison.faults)
    echoed = answer.headers.get("x-request-id")
    if echoed != request_id:
        faults.append(f"the answer carries request id {echoed!r}, not {request_id!r}")
    delay = service.log_delay
    console.step(
        "looking for its line in the service's log"
        + (
            f", for up to {delay:g} s (LOG_WAIT): lines arrive late there"
            if delay is not None
            else ""
        )
    )
    line = find_log_line(service, request_id)
    expected = {"request_id": request_id, "traceparent": traceparent, "predictions": rows}
    if line is None and delay is not None and not faults:
        # That the answer carries the request's id has been checked.
        console.warning(
            f"the line of request {request_id} is not in the service's log after {delay:g} s;"
            " `make logs` will show it"
        )
    else:
        faults += log_faults(line, expected)
    record = {
        "url": endpoint.url,
        "deployment": deployment.number,
        "version": deployment.version,
        "status": answer.status,
        "request_id": request_id,
        "traceparent": traceparent,
        "predictions": comparison.predictions,
        "max_difference": comparison.max_difference,
        "tolerance": sample["tolerance"],
        "log": line,
    }
    if faults:
        raise Refused(
            f"{deployment.model_name} version {deployment.version}: {'; '.join(faults)}",
            "see `make logs`; `make rollback` serves the deployment before",
            figures=record,
        )
    return Result(
        f"version {deployment.version} answers {rows} rows as recorded"
        f" (difference {comparison.max_difference:.2g})"
        + (" and logs them" if line else "; its log line has not come yet"),
        record,
    )


def main() -> int:
    return run_verb("smoke", run)


if __name__ == "__main__":
    sys.exit(main())
