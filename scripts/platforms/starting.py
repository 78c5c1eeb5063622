"""What every new deployment is started with, and the proof it must give before it serves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.errors import SlipwayError, UsageError
from scripts.platforms.base import Deployment
from scripts.proof import prove, wait_healthy
from scripts.settings import Settings

#: The settings the service reads, besides its secrets.
SERVICE_SETTINGS = (
    "MAX_BODY_BYTES",
    "MAX_ROWS",
    "REQUEST_TIMEOUT",
    "BODY_TIMEOUT",
    "QUEUE_SIZE",
    "QUEUE_SECONDS",
    "GRACE_SECONDS",
    "WORKERS",
    "WORKSPACE_NAME",
    "OTEL_TRACES_SAMPLER_ARG",
)

#: The secrets it reads. They are those of now, after a rollback too.
SERVICE_SECRETS = (
    "SCORING_KEY",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
)

#: How long a new service may take until it is healthy, in seconds.
START_TIMEOUT = 60.0

#: Seconds a service gets after GRACE_SECONDS to write its log and send its traces.
ENDING = 4

#: Lines of a failed service's log that are shown.
LOG_TAIL = 30


def service_settings(settings: Settings) -> dict[str, str]:
    """The service's environment, without its secrets."""
    values = {name: getattr(settings, name) for name in SERVICE_SETTINGS}
    return {name: str(value) for name, value in values.items() if value is not None}


def secret_environment(settings: Settings) -> dict[str, str]:
    """The service's secrets as its environment has them, those that are set."""
    values = {name: getattr(settings, name) for name in SERVICE_SECRETS}
    return {name: value.get_secret_value() for name, value in values.items() if value}


def key_headers(settings: Settings) -> dict[str, str]:
    """What a client sends along with every request; empty if no key is set."""
    key = settings.SCORING_KEY
    return {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}


def read_sample(text: bytes) -> Mapping[str, Any]:
    """The sample in a model.json: request, result and tolerance."""
    try:
        sample: Mapping[str, Any] = json.loads(text)["sample"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            "model.json of the packaged model is damaged", "run `make image FORCE=1`"
        ) from None
    return sample


def bundle_sample(bundle: Path) -> Mapping[str, Any]:
    """The sample of a bundle's model; UsageError if the bundle is gone or damaged."""
    try:
        return read_sample((bundle / "model" / "model.json").read_bytes())
    except OSError:
        raise UsageError(
            f"the bundle {bundle} cannot be read", "run `make image FORCE=1`"
        ) from None


def prove_start(
    what: str,
    url: str,
    sample: Mapping[str, Any],
    headers: Mapping[str, str],
    *,
    exit_code: Callable[[], int | None],
    log: Callable[[], Sequence[str]],
    serving: Deployment | None,
) -> None:
    """Wait until a new service at `url` is healthy, and hold it to the sample.

    `exit_code` gives None while it runs. SlipwayError with the end of its log if it fails; it says
    what serves on.
    """
    healthy = wait_healthy(url, timeout=START_TIMEOUT, alive=lambda: exit_code() is None)
    if healthy:
        reason = wrong_answer(url, sample, headers)
    elif (code := exit_code()) is not None:
        reason = f"ended with code {code}"
    else:
        reason = f"is not healthy after {START_TIMEOUT:g} s"
    if reason is not None:
        after = (
            f"deployment {serving.number} (version {serving.version}) serves on"
            if serving
            else "nothing serves"
        )
        raise failed_start(what, reason, log(), after)


def wrong_answer(
    url: str, sample: Mapping[str, Any], headers: Mapping[str, str], certificate: str = ""
) -> str | None:
    """What is wrong with the answer to the sample request; None if nothing is."""
    try:
        prove(url, sample, headers, certificate)
    except SlipwayError as wrong:
        return f"answers the sample request wrongly: {wrong.message}"
    return None


def failed_start(
    what: str, reason: str, log: Sequence[str], after: str, mend: str = ""
) -> SlipwayError:
    """The error for a new service that failed, with the end of its log; `after` says what serves."""
    lines = [*log][-LOG_TAIL:] or ["(it logged nothing)"]
    shown = "".join(f"\n  | {line}" for line in lines)
    return SlipwayError(
        f"{what} {reason}; {after}. The end of its log:{shown}",
        mend or "mend what the log says, then run the verb again",
    )
