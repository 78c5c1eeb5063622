"""Where spans and log records go: OTLP over HTTP, Application Insights, or both.

Each has a queue of its own for spans and one for log records, both bounded, and a thread that
empties it; what does not fit or cannot be delivered is dropped.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from scoring.log import log_event
from scoring.telemetry import ApplicationInsights, TelemetrySettings

if TYPE_CHECKING:
    from azure.monitor.opentelemetry.exporter import (
        AzureMonitorLogExporter,
        AzureMonitorTraceExporter,
    )
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

_QUEUE_SIZE = 2048
_BATCH_SIZE = 512
_DELAY_MS = 1000
_TIMEOUT = 10.0
_REPORT_SECONDS = 60.0

# The exporter reports on itself to Microsoft and fetches switches from there unless told not to;
# and with every batch it would send the resource's attributes as a metric that nobody asked for.
# https://learn.microsoft.com/azure/azure-monitor/app/statsbeat and the exporter's change log.
_SILENCED = (
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED",
    "APPLICATIONINSIGHTS_OPENTELEMETRY_RESOURCE_METRIC_DISABLED",
)
# It reads these as well as what it is given, or in place of it.
_READ_ALONG = ("APPLICATIONINSIGHTS_CONNECTION_STRING", "APPINSIGHTS_INSTRUMENTATIONKEY")


class Processors:
    """The processors of spans and of log records, their threads running."""

    def __init__(self, settings: TelemetrySettings) -> None:
        _report(settings.azure.key if settings.azure else None)
        self.spans: list[BatchSpanProcessor] = []
        self.logs: list[BatchLogRecordProcessor] = []
        if settings.otlp:
            self._add(*_otlp(settings.otlp))
        if settings.azure:
            self._add(*_azure(settings.azure))

    @property
    def ends(self) -> list[Callable[[], None]]:
        """What flushes and ends each processor; may block for long."""
        return [*(each.shutdown for each in self.spans), *(each.shutdown for each in self.logs)]

    def _add(self, spans: SpanExporter, logs: LogRecordExporter) -> None:
        self.spans.append(
            BatchSpanProcessor(
                spans,
                max_queue_size=_QUEUE_SIZE,
                max_export_batch_size=_BATCH_SIZE,
                schedule_delay_millis=_DELAY_MS,
            )
        )
        self.logs.append(
            BatchLogRecordProcessor(
                logs,
                max_queue_size=_QUEUE_SIZE,
                max_export_batch_size=_BATCH_SIZE,
                schedule_delay_millis=_DELAY_MS,
            )
        )


def load(settings: TelemetrySettings) -> None:
    """Import the exporters that the settings ask for; the slow part of starting them."""
    if settings.otlp:
        _otlp_exporters()
    if settings.azure:
        _azure_exporters()


def _otlp(endpoint: str) -> tuple[SpanExporter, LogRecordExporter]:
    spans, logs = _otlp_exporters()
    return spans(endpoint=f"{endpoint}/v1/traces"), logs(endpoint=f"{endpoint}/v1/logs")


def _otlp_exporters() -> tuple[type[OTLPSpanExporter], type[OTLPLogExporter]]:
    import requests  # noqa: F401 - what they send with, and import only when they are made
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter, OTLPLogExporter


def _azure(target: ApplicationInsights) -> tuple[SpanExporter, LogRecordExporter]:
    os.environ.update(dict.fromkeys(_SILENCED, "true"))
    for name in _READ_ALONG:
        os.environ.pop(name, None)
    options = {
        "connection_string": f"InstrumentationKey={target.key};IngestionEndpoint={target.endpoint}",
        "credential": None,
        "disable_offline_storage": True,  # the service's file system is read-only
        # A batch that waits for its retry holds up those after it.
        "retry_total": 2,
        "timeout": _TIMEOUT,
        "read_timeout": _TIMEOUT,
    }
    spans, logs = _azure_exporters()
    return spans(**options), logs(**options)


def _azure_exporters() -> tuple[type[AzureMonitorTraceExporter], type[AzureMonitorLogExporter]]:
    from azure.monitor.opentelemetry.exporter import (
        AzureMonitorLogExporter,
        AzureMonitorTraceExporter,
    )

    return AzureMonitorTraceExporter, AzureMonitorLogExporter


def _report(secret: str | None) -> None:
    """Have warnings of the exporters, and ours, logged by `_Report` and by nobody else."""
    handler = _Report(secret)
    for name in ("opentelemetry", "azure", "urllib3", "scoring"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.WARNING)
        logger.propagate = False


class _Report(logging.Handler):
    """The first warning at once, then at most one line a minute; no traceback, no key."""

    def __init__(self, secret: str | None) -> None:
        super().__init__(logging.WARNING)
        self._secret = secret
        self._next = 0.0
        self._unsaid = 0

    def emit(self, record: logging.LogRecord) -> None:
        now = monotonic()
        if now < self._next:
            self._unsaid += 1
            return
        self._next = now + _REPORT_SECONDS
        lines = record.getMessage().splitlines() or [""]
        message = lines[0].replace(self._secret, "…") if self._secret else lines[0]
        log_event("telemetry_warning", message=message[:300], more=self._unsaid)
        self._unsaid = 0
