"""OpenTelemetry: off, and not even imported, unless the environment names where to send it.

OTEL_EXPORTER_OTLP_ENDPOINT             an OTLP/HTTP collector, http://collector:4318 say
APPLICATIONINSIGHTS_CONNECTION_STRING   Application Insights; a secret
OTEL_EXPORTER_OTLP_HEADERS              headers for it; a secret
OTEL_TRACES_SAMPLER_ARG                 share of requests to trace, 0 to 1, 1 by default
WORKSPACE_NAME                          the column `workspace` of the traces
SERVICE_NAME, OTEL_SERVICE_NAME         the name of the service, else the model's
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scoring.contract import Contract
from scoring.errors import StartError

if TYPE_CHECKING:
    from scoring.tracing import Telemetry

_OTLP = "OTEL_EXPORTER_OTLP_ENDPOINT"
_AZURE = "APPLICATIONINSIGHTS_CONNECTION_STRING"
_RATIO = "OTEL_TRACES_SAMPLER_ARG"
_HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
# Others the exporter leaves out, and quotes in a warning.
_HEADER = re.compile(r"""\s*[-!#$%&'*+.^_`|~\w]+\s*=[ !#-+\--:<-\[\]-~]*""", re.ASCII)
_KEY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class ApplicationInsights:
    """Where an Application Insights resource takes telemetry. `repr` does not show the key."""

    key: str
    endpoint: str

    def __repr__(self) -> str:
        return f"ApplicationInsights(endpoint={self.endpoint!r})"


@dataclass(frozen=True)
class TelemetrySettings:
    """At least one of `otlp`, a base URL, and `azure` is given. `ratio` is from 0 to 1."""

    otlp: str | None
    azure: ApplicationInsights | None
    ratio: float
    workspace: str
    service: str


def read_settings(environ: Mapping[str, str], contract: Contract) -> TelemetrySettings | None:
    """The settings, or None if nothing is to be sent; imports nothing of OpenTelemetry.

    Raises StartError naming the variable, never with a key in it.
    """
    otlp = environ.get(_OTLP, "").strip()
    azure = environ.get(_AZURE, "").strip()
    if not otlp and not azure:
        return None
    if otlp and not all(
        _HEADER.fullmatch(header) for header in environ.get(_HEADERS, "").split(",") if header
    ):
        raise StartError(f"{_HEADERS} must be name=value, more of them separated by commas")
    names = (environ.get(name, "") for name in ("SERVICE_NAME", "OTEL_SERVICE_NAME"))
    return TelemetrySettings(
        otlp=_collector(otlp) if otlp else None,
        azure=_application_insights(azure) if azure else None,
        ratio=_ratio(environ.get(_RATIO, "").strip()),
        workspace=environ.get("WORKSPACE_NAME", ""),
        service=next(filter(None, names), contract.name),
    )


def prepare(environ: Mapping[str, str], contract: Contract) -> None:
    """What can be done before a fork: check the settings, and import what they ask for.

    Forked processes share it, and `connect` at once. Raises StartError as `read_settings` does.
    """
    settings = read_settings(environ, contract)
    if settings is not None:
        from scoring import exporters, tracing  # noqa: F401 - for `connect`

        exporters.load(settings)


def connect(environ: Mapping[str, str], contract: Contract) -> Telemetry | None:
    """Start the exporters the environment asks for; None if it asks for none.

    To be called in the process whose requests are recorded: exporters are threads, which do not
    survive a fork. Raises StartError as `read_settings` does.
    """
    settings = read_settings(environ, contract)
    if settings is None:
        return None
    from scoring.tracing import Telemetry

    return Telemetry(settings, contract)


def _collector(text: str) -> str:
    if not _is_address(text):
        # Credentials may stand in an address, against the advice of this very line.
        shown = "" if set("@?") & set(text) else f" is {text!r}; it"
        raise StartError(
            f"{_OTLP}{shown} must be an address like http://collector:4318, without credentials "
            f"(those go into OTEL_EXPORTER_OTLP_HEADERS)"
        )
    return text.rstrip("/")


def _application_insights(text: str) -> ApplicationInsights:
    pairs = (pair.partition("=") for pair in text.split(";"))
    given = {name.strip().lower(): value.strip() for name, _, value in pairs}
    key = given.get("instrumentationkey", "").lower()
    endpoint = given.get("ingestionendpoint", "")
    if not _KEY.fullmatch(key) or not _is_address(endpoint):
        raise StartError(
            f"{_AZURE} must be a connection string as the Azure portal shows it: "
            f"InstrumentationKey=<uuid>;IngestionEndpoint=https://…"
        )
    return ApplicationInsights(key, endpoint.rstrip("/"))


def _is_address(text: str) -> bool:
    try:
        url = urlsplit(text)
        named = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False
    return named and not set("@?# ") & set(text)


def _ratio(text: str) -> float:
    try:
        ratio = float(text or 1)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise StartError(f"{_RATIO} is {text!r}; it must be a number from 0 to 1, like 0.1")
    return ratio
