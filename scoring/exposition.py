"""`Metrics` in Prometheus' text format; imported at the first request for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Metric, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from scoring.drift import Moments
from scoring.metrics import (
    ALIVE,
    BOUNDS,
    IN_FLIGHT,
    INPUT_ROWS,
    PATHS,
    PREDICTIONS,
    STATUS_CLASSES,
    Metrics,
)


def render(metrics: Metrics) -> bytes:
    """All metrics as they are now."""
    return generate_latest(_Snapshot(metrics))


class _Snapshot(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._totals = metrics.totals().tolist()
        self._bank = metrics.bank()

    def collect(self) -> Iterable[Metric]:
        yield from self._service()
        yield from self._requests()
        yield from self._inputs()

    def _service(self) -> Iterator[Metric]:
        contract = self._metrics.contract
        info = GaugeMetricFamily(
            "scoring_model_info",
            "The model that is served; the value is always 1.",
            labels=["model", "version", "runtime", "sha256"],
        )
        known = [contract.name, str(contract.version), contract.runtime, contract.sha256]
        info.add_metric(known, 1)
        yield info
        yield GaugeMetricFamily(
            "scoring_workers", "Worker processes that run.", value=self._totals[ALIVE]
        )
        yield GaugeMetricFamily(
            "process_start_time_seconds",
            "When the service started, in seconds since the Unix epoch.",
            value=self._metrics.started,
        )

    def _requests(self) -> Iterator[Metric]:
        layout, totals = self._metrics.layout, self._totals
        requests = CounterMetricFamily(
            "http_requests",
            "Requests answered; status 499 is a client that left before its answer.",
            labels=["path", "status"],
        )
        for path in PATHS:
            for status in layout.statuses:
                if count := totals[layout.request(path, status)]:
                    requests.add_metric([path, status], count)
        yield requests
        latency = HistogramMetricFamily(
            "http_request_duration_seconds",
            "Time from the end of a request to its answer, for /score.",
            labels=["status_class"],
        )
        for at, name in enumerate(STATUS_CLASSES):
            start = layout.latency + at * layout.latency_shape[1]
            *counts, seconds = totals[start : start + layout.latency_shape[1]]
            latency.add_metric([name], _cumulative(counts), seconds)
        yield latency
        yield CounterMetricFamily(
            "scoring_predictions", "Rows predicted.", value=totals[PREDICTIONS]
        )
        rejected = CounterMetricFamily(
            "scoring_rejected",
            "Requests not served, by the code in the answer, or client_left.",
            labels=["reason"],
        )
        for at, code in enumerate(layout.codes):
            rejected.add_metric([code], totals[layout.rejected + at])
        yield rejected
        yield GaugeMetricFamily(
            "scoring_requests_in_flight",
            "Requests whose headers are complete and whose answer is not.",
            value=totals[IN_FLIGHT],
        )

    def _inputs(self) -> Iterator[Metric]:
        inputs = self._metrics.inputs
        yield CounterMetricFamily(
            "scoring_input_rows",
            "Rows sampled for the statistics of the inputs.",
            value=self._totals[INPUT_ROWS],
        )
        rows = self._bank[0, 0]
        yield GaugeMetricFamily(
            "scoring_input_window_rows", "Rows the statistics below are of.", value=rows
        )
        columns = range(len(inputs.names))
        live = [inputs.moments(at, self._bank) if rows else None for at in columns]
        reference = [inputs.reference(at) for at in columns]
        yield from self._moments("", "in recent requests", live)
        yield from self._moments("_reference", "in the training rows", reference)
        yield self._by_column(
            "scoring_input_psi",
            "Population stability index of a column against the training rows.",
            [inputs.psi(at, self._bank) for at in columns],
        )

    def _moments(self, suffix: str, where: str, found: list[Moments | None]) -> Iterator[Metric]:
        figures: dict[str, tuple[str, Callable[[Moments], float]]] = {
            "mean": ("Mean of a number column", lambda moments: moments.mean),
            "stddev": ("Standard deviation of a number column", lambda moments: moments.stddev),
            "missing_ratio": (
                "Share of rows without a value",
                lambda moments: moments.missing_ratio,
            ),
        }
        for name, (meaning, figure) in figures.items():
            yield self._by_column(
                f"scoring_input_{name}{suffix}",
                f"{meaning} {where}.",
                [None if moments is None else figure(moments) for moments in found],
            )

    def _by_column(self, name: str, meaning: str, values: list[float | None]) -> Metric:
        """A gauge with a row for each column whose value is known."""
        family = GaugeMetricFamily(name, meaning, labels=["column"])
        for column, value in zip(self._metrics.inputs.names, values, strict=True):
            if value is not None and not math.isnan(value):
                family.add_metric([column], value)
        return family


def _cumulative(counts: list[float]) -> list[tuple[str, float]]:
    found, total = [], 0.0
    for bound, count in zip([*BOUNDS, math.inf], counts, strict=True):
        total += count
        found.append(("+Inf" if math.isinf(bound) else str(bound), total))
    return found
