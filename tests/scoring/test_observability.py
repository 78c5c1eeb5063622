"""Metrics and traces of a running service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import create_server
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families

from scripts.dataset import _statistics
from tests.scoring.collector import KEY, Collector
from tests.scoring.service import Service
from tests.scoring.test_start import fail

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRAINED = np.random.default_rng(0).uniform(0, 20, 200)


@pytest.fixture(scope="module")
def described_dir(regressor_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The regressor with training statistics: each column lay between 0 and 20."""
    folder = tmp_path_factory.mktemp("described") / "model"
    shutil.copytree(regressor_dir, folder)
    document = json.loads((folder / "model.json").read_text())
    statistics = _statistics(pd.Series(TRAINED), text=False)
    document["reference"] = {column["name"]: statistics for column in document["columns"]}
    (folder / "model.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def read(service: Service, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels, as a scrape sees it now."""
    answer = service.request("GET", "/metrics")
    assert answer.status == 200
    return sum(
        sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
        if sample.name == name and sample.labels.items() >= labels.items()
    )


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def score(service: Service, rows: int, value: float = 10.0, **headers: str) -> int:
    return service.score({"data": [[value] * 3] * rows}, headers).status


def test_a_scrape(described_dir: Path, start: Callable[..., Service]) -> None:
    service = start(described_dir, {"WORKERS": "2"})
    for _ in range(20):
        assert score(service, rows=3) == 200
    service.score({"data": [[1]]})
    service.score(b"{")
    service.request("GET", "/")
    service.request("GET", "/wp-login.php")
    answer = service.request("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=1.0.0")
    expected = {("/score", "200"): 20, ("/score", "422"): 1, ("/score", "400"): 1}
    expected |= {("/", "200"): 1, ("other", "404"): 1}
    for (path, status), count in expected.items():
        assert read(service, "http_requests_total", path=path, status=status) == count
    assert read(service, "scoring_predictions_total") == 60
    assert read(service, "http_request_duration_seconds_count", status_class="2xx") == 20
    assert read(service, "scoring_rejected_total", reason="invalid_data") == 1
    assert read(service, "scoring_workers") == 2
    assert read(service, "scoring_model_info", model="toy", version="7") == 1
    # The scrape itself.
    assert read(service, "scoring_requests_in_flight") == 1


def test_drift(described_dir: Path, start: Callable[..., Service]) -> None:
    service = start(described_dir, {"WORKERS": "2"})
    for value in TRAINED:
        score(service, rows=1, value=value)
    wait_for(lambda: read(service, "scoring_input_window_rows") == len(TRAINED))
    column = {"column": 'depth "outer"'}
    assert read(service, "scoring_input_psi", **column) == pytest.approx(0, abs=1e-9)
    assert read(service, "scoring_input_mean", **column) == pytest.approx(TRAINED.mean())
    assert read(service, "scoring_input_mean_reference", **column) == TRAINED.mean()
    score(service, rows=400, value=19.0)
    wait_for(lambda: read(service, "scoring_input_rows_total") == len(TRAINED) + 400)
    assert read(service, "scoring_input_psi", **column) > 1
    # What is refused tells nothing of the inputs.
    service.score({"data": [[1, 2, "3"]]})
    assert read(service, "scoring_input_rows_total") == len(TRAINED) + 400


def test_counts_outlive_a_worker(described_dir: Path, start: Callable[..., Service]) -> None:
    service = start(described_dir, {"WORKERS": "2"})
    for _ in range(10):
        score(service, rows=1)
    for worker in service.workers():
        os.kill(worker, signal.SIGKILL)
    service.logged(event="worker_died")
    wait_for(lambda: len(service.workers()) == 2)
    wait_for(lambda: read(service, "scoring_workers") == 2)
    assert read(service, "http_requests_total", path="/score") == 10
    assert read(service, "scoring_requests_in_flight") == 1


def test_traces_by_otlp(
    described_dir: Path, start: Callable[..., Service], collector: Collector
) -> None:
    service = start(described_dir, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    service.request("GET", "/")
    score(service, rows=4, traceparent=TRACE, tracestate="a=1", **{"X-Request-Id": "mine"})
    collector.wait_for(lambda: bool(collector.spans and collector.logs))
    (span,) = collector.spans
    assert span["trace_id"] in TRACE
    assert span["parent"] in TRACE
    assert span["trace_state"] == "a=1"
    assert span["attributes"]["scoring.request_id"] == "mine"
    assert span["attributes"]["scoring.predictions"] == 4
    assert 0 < span["end"] - span["start"] < 10**10
    assert abs(span["end"] / 1e9 - time.time()) < 60


def test_the_query_of_the_reference(
    described_dir: Path, start: Callable[..., Service], collector: Collector
) -> None:
    settings = {
        "APPLICATIONINSIGHTS_CONNECTION_STRING": collector.connection_string,
        "WORKSPACE_NAME": "mlops-AML-WS",
        "SERVICE_NAME": "prices",
        "WORKERS": "2",
    }
    service = start(described_dir, settings)
    sizes = [1, 2, 30, 400]
    for rows in sizes:
        score(service, rows=rows, traceparent=TRACE)
    service.score({"data": []}, {"traceparent": TRACE})
    # Those that wait are sent before the service ends.
    assert service.stop() == 0
    found = collector.reference_query()
    by_status: dict[str, list[Any]] = {}
    for row in found:
        assert (row["workspace"], row["service"]) == ("mlops-AML-WS", "prices")
        assert row["TraceParent"] == TRACE
        by_status.setdefault(row["resultCode"], []).append(int(row["NumberOfPredictions"]))
    assert sorted(by_status.pop("200")) == sizes
    assert by_status == {"422": [0]}


def test_a_collector_that_is_not_there(described_dir: Path, start: Callable[..., Service]) -> None:
    with create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    azure = f"InstrumentationKey={KEY};IngestionEndpoint={url}"
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "APPLICATIONINSIGHTS_CONNECTION_STRING": azure,
        "WORKERS": "1",
    }
    service = start(described_dir, settings)
    for _ in range(50):
        assert score(service, rows=1) == 200
    warning = service.logged(event="telemetry_warning")
    assert KEY not in warning["message"]
    assert score(service, rows=1) == 200
    assert service.stop() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APPLICATIONINSIGHTS_CONNECTION_STRING", f"InstrumentationKey={KEY}"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
    ],
)
def test_a_bad_destination_ends_the_start(described_dir: Path, name: str, value: str) -> None:
    code, line = fail(described_dir, {name: value})
    assert code == 2
    assert name in line
    assert KEY not in line
