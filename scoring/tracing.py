"""Requests as OpenTelemetry spans and log records; imported only if `scoring.telemetry` says so."""

from __future__ import annotations

import logging
import threading
import time
from random import Random

import orjson
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from scoring.contract import Contract
from scoring.exporters import Processors
from scoring.metrics import OTHER, PATHS
from scoring.telemetry import TelemetrySettings

_ROUTES = frozenset(PATHS) - {OTHER}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"})
#: Of its rows Application Insights says that each stands for 100 / this (the column itemCount).
_SAMPLE_RATE = "_MS.sampleRate"
_SAMPLED = 1
#: Most requests that one worker records in a second. One takes up to 0.6 ms of the worker's core, and
#: without a limit a service under load would do little but tell of itself.
MOST_PER_SECOND = 100

_logger = logging.getLogger(__name__)


class Telemetry:
    """Records requests; exporters send them from threads of their own."""

    def __init__(self, settings: TelemetrySettings, contract: Contract) -> None:
        self._ratio = settings.ratio
        self._random = Random()  # noqa: S311 - seeded anew in each process, and no secret
        self._names = {"Workspace Name": settings.workspace, "Service Name": settings.service}
        self._processors = Processors(settings)
        resource = Resource.create(
            {"service.name": settings.service, "service.version": str(contract.version)}
        )
        # Whether a request is recorded is decided before a span is made of it, see `_wanted`.
        spans = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        logs = LoggerProvider(resource, shutdown_on_exit=False)
        for span_processor in self._processors.spans:
            spans.add_span_processor(span_processor)
        for log_processor in self._processors.logs:
            logs.add_log_record_processor(log_processor)
        self._tracer = spans.get_tracer("scoring")
        self._logger = logs.get_logger("scoring")
        self._propagator = TraceContextTextMapPropagator()
        self._azure = settings.azure is not None
        self._second = 0
        self._recorded = 0

    def record(
        self,
        *,
        traceparent: str | None,
        tracestate: str | None,
        method: str,
        path: str,
        status: int,
        started_ns: int,
        ended_ns: int,
        predictions: int,
        request_id: str,
    ) -> None:
        """Record one request, after its answer was sent.

        A well-formed `traceparent` is continued, and its caller's sampling decision kept. Times are
        in nanoseconds of the Unix epoch.
        """
        if not self._wanted(traceparent, path) or self._is_too_much(ended_ns):
            return
        carrier = {"traceparent": traceparent or "", "tracestate": tracestate or ""}
        known = path in _ROUTES
        verb = method if method in _METHODS else "HTTP"
        span = self._tracer.start_span(
            f"{verb} {path}" if known else verb,
            self._propagator.extract(carrier),
            SpanKind.SERVER,
            {
                "http.request.method": method if method in _METHODS else "_OTHER",
                "http.response.status_code": status,
                "url.scheme": "http",
                "url.path": path[:256],
                "scoring.request_id": request_id,
                "scoring.predictions": predictions,
                **({"http.route": path} if known else {}),
                **({"error.type": str(status)} if status >= 500 else {}),
            },
            start_time=started_ns,
        )
        if self._azure:
            # Its own column has milliseconds, in which many requests take none.
            span.set_attribute("scoring.duration_ms", (ended_ns - started_ns) / 1e6)
            if traceparent is None:
                span.set_attribute(_SAMPLE_RATE, 100 * self._ratio)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended_ns)
        if path != "/score":
            return
        content = {
            "RequestId": f"{span.get_span_context().span_id:016x}",
            "TraceParent": traceparent,
            "NumberOfPredictions": predictions,
        }
        self._logger.emit(
            LogRecord(
                timestamp=ended_ns,
                context=set_span_in_context(span),
                severity_number=SeverityNumber.ERROR if status >= 500 else SeverityNumber.INFO,
                body=f"{verb} {path} {status}",
                attributes={"Content": orjson.dumps(content).decode(), **self._names},
            )
        )

    def shutdown(self, timeout_seconds: float) -> None:
        """Send what is queued, for at most this long; what is left then is lost."""
        ends = time.monotonic() + timeout_seconds
        threads = [threading.Thread(target=end, daemon=True) for end in self._processors.ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _wanted(self, traceparent: str | None, path: str) -> bool:
        """Whether a request is recorded: as its caller decided, else a share of /score.

        Health checks and scrapes come all day, and tell nothing unless somebody follows one.
        """
        if traceparent is not None:
            return bool(int(traceparent[53:55], 16) & _SAMPLED)
        return path == "/score" and self._random.random() < self._ratio

    def _is_too_much(self, now_ns: int) -> bool:
        """Count a request that is wanted; whether its second has had enough of them."""
        second = now_ns // 1_000_000_000
        if second != self._second:
            self._second, self._recorded = second, 0
        self._recorded += 1
        if self._recorded == MOST_PER_SECOND + 1:
            _logger.warning(
                "more than %d requests a second were to be traced, of which the rest is not; "
                "lower OTEL_TRACES_SAMPLER_ARG",
                MOST_PER_SECOND,
            )
        return self._recorded > MOST_PER_SECOND
