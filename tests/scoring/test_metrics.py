"""Metrics that workers share, as Prometheus reads them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import prometheus_client.exposition
import pytest
from prometheus_client.parser import text_string_to_metric_families

from scoring.metrics import CONTENT_TYPE, Metrics, WorkerMetrics
from tests.scoring.contracts import contract

ROOT = Path(__file__).parents[2]
#: A label must come out as it was put in.
AWKWARD = ['say "a\\b"', "two\nlines", "größe, in cm {x}", "a" * 300]
COLUMNS = {name: pd.Series([1.0, 2.0, 3.0, np.nan]) for name in ["width", *AWKWARD]}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(contract(COLUMNS), workers=3)


def read(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample by name and label values."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            rows = found.setdefault(sample.name, {})
            key = tuple(sample.labels.values())
            assert key not in rows, f"{sample.name}{key} twice"
            rows[key] = sample.value
    return found


def answer(worker: WorkerMetrics, status: int = 200, path: str = "/score", **also: Any) -> None:
    worker.began()
    worker.ended(
        path, status, also.get("code"), also.get("seconds", 0.003), also.get("predictions", 0)
    )


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked process; its pid. It must be waited for."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def test_answers_are_counted_by_path_and_status(metrics: Metrics) -> None:
    worker = metrics.worker(0)
    answer(worker, predictions=4)
    answer(worker, predictions=3)
    answer(worker, 422, code="invalid_data")
    answer(worker, path="/")
    answer(worker, 404, path="/admin.php", code="not_found")
    answer(worker, 499, code="client_left")
    found = read(metrics)
    assert found["http_requests_total"] == {
        ("/score", "200"): 2,
        ("/score", "422"): 1,
        ("/score", "499"): 1,
        ("/", "200"): 1,
        ("other", "404"): 1,
    }
    assert found["scoring_predictions_total"] == {(): 7}
    rejected = {key: value for key, value in found["scoring_rejected_total"].items() if value}
    assert rejected == {("client_left",): 1, ("invalid_data",): 1, ("not_found",): 1}


def test_clients_cannot_make_rows(metrics: Metrics) -> None:
    worker = metrics.worker(0)
    for number in range(200):
        answer(worker, 200 + number, path=f"/{number}", code=f"code {number}")
        answer(worker, 200 + number)
    found = read(metrics)
    assert {path for path, _ in found["http_requests_total"]} == {"/score", "other"}
    assert sum(found["http_requests_total"].values()) == 400
    assert found["http_requests_total"]["/score", "other"] > 100
    assert found["scoring_rejected_total"]["other",] == 200


def test_the_latency_histogram(metrics: Metrics) -> None:
    worker = metrics.worker(0)
    for seconds in (0.0001, 0.0005, 0.00051, 0.3, 100.0):
        answer(worker, seconds=seconds)
    answer(worker, 503, code="queue_full", seconds=0.0001)
    answer(worker, path="/", seconds=0.0001)
    found = read(metrics)
    buckets = {
        float(bound): count
        for (bound, kind), count in found["http_request_duration_seconds_bucket"].items()
        if kind == "2xx"
    }
    assert (buckets[0.0005], buckets[0.001], buckets[0.25], buckets[0.5]) == (2, 3, 3, 4)
    assert (buckets[30.0], buckets[math.inf]) == (4, 5)
    assert list(buckets.values()) == sorted(buckets.values())
    assert found["http_request_duration_seconds_count"]["2xx",] == 5
    assert found["http_request_duration_seconds_sum"]["2xx",] == pytest.approx(100.30111)
    assert found["http_request_duration_seconds_count"]["5xx",] == 1


def test_what_the_service_is(metrics: Metrics) -> None:
    metrics.worker(0)
    metrics.worker(2)
    found = read(metrics)
    assert found["scoring_model_info"] == {("toy", "onnx", "0" * 64, "7"): 1}
    assert found["scoring_workers"] == {(): 2}
    assert found["process_start_time_seconds"][()] == pytest.approx(metrics.started)
    metrics.release(2)
    assert read(metrics)["scoring_workers"] == {(): 1}


def test_inputs_against_their_reference(metrics: Metrics) -> None:
    worker = metrics.worker(0)
    before = read(metrics)
    assert before["scoring_input_window_rows"] == {(): 0}
    assert "scoring_input_mean" not in before
    assert before["scoring_input_mean_reference"]["width",] == 2
    assert before["scoring_input_missing_ratio_reference"]["width",] == 0.25
    worker.observe(np.array([[10.0] * len(COLUMNS), [20.0] * len(COLUMNS)]))
    worker.observe(np.array([[np.nan] * len(COLUMNS)]))
    worker.fold()
    found = read(metrics)
    assert found["scoring_input_rows_total"] == {(): 3}
    assert set(found["scoring_input_mean"]) == {(name,) for name in COLUMNS}
    assert found["scoring_input_mean"]["width",] == 15
    assert found["scoring_input_stddev"]["width",] == 5
    assert found["scoring_input_missing_ratio"]["width",] == pytest.approx(1 / 3)
    assert found["scoring_input_psi"]["width",] > 0.2


def test_the_text_is_well_formed(metrics: Metrics) -> None:
    """As `promtool check metrics` asks: each name once, documented, with its unit's suffix."""
    worker = metrics.worker(0)
    answer(worker, predictions=1)
    worker.observe(np.ones((5, len(COLUMNS))))
    worker.fold()
    lines = metrics.render().decode().splitlines()
    helped = Counter(line.split()[2] for line in lines if line.startswith("# HELP"))
    typed = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE")}
    assert set(helped) == set(typed)
    assert set(helped.values()) == {1}
    assert len(typed) == sum(line.startswith("# TYPE") for line in lines)
    for name, kind in typed.items():
        assert name.endswith("_total") == (kind == "counter")
        assert not name.endswith(("_count", "_sum", "_bucket"))
    assert all(len(line.split(" ", 3)[3]) > 10 for line in lines if line.startswith("# HELP"))
    assert CONTENT_TYPE == prometheus_client.exposition.CONTENT_TYPE_LATEST


def test_workers_add_up(metrics: Metrics) -> None:
    def work(index: int) -> None:
        worker = metrics.worker(index)
        for _ in range(1000 + index):
            answer(worker, predictions=2)
        worker.observe(np.full((10, len(COLUMNS)), float(index)))
        worker.fold()
        worker.began()

    for child in [in_child(lambda index=index: work(index)) for index in range(3)]:  # type: ignore[misc]
        os.waitpid(child, 0)
    found = read(metrics)
    assert found["http_requests_total"] == {("/score", "200"): 3003}
    assert found["scoring_predictions_total"] == {(): 6006}
    assert found["scoring_requests_in_flight"] == {(): 3}
    assert found["scoring_input_window_rows"] == {(): 30}
    assert found["scoring_input_mean"]["width",] == 1


def test_a_worker_that_is_killed(metrics: Metrics) -> None:
    ready, go = os.pipe()

    def work() -> None:
        worker = metrics.worker(1)
        rows = np.ones((3, len(COLUMNS)))
        while True:
            answer(worker, predictions=3)
            worker.observe(rows)
            worker.fold()
            worker.began()
            os.write(go, b".")
            worker.ended("/score", 200, None, 0.001, 3)

    answer(metrics.worker(0))
    rounds = 0
    for _ in range(10):
        child = in_child(work)
        rounds += len(os.read(ready, 1 << 16))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        metrics.release(1)
        found = read(metrics)
        assert found["scoring_requests_in_flight"] == {(): 0}
        assert found["scoring_workers"] == {(): 1}
        assert found["http_requests_total"]["/score", "200"] >= rounds
        assert found["scoring_input_mean"]["width",] == 1
    # Another takes the place, and goes on from these counts.
    before = read(metrics)
    worker = metrics.worker(1)
    answer(worker, predictions=5)
    after = read(metrics)
    for name in ("http_requests_total", "scoring_predictions_total"):
        assert sum(after[name].values()) - sum(before[name].values()) in (1, 5)
    assert after["http_request_duration_seconds_count"]["2xx",] == pytest.approx(
        after["http_requests_total"]["/score", "200"], abs=10
    )
    os.close(ready)
    os.close(go)


def test_a_replaced_worker_has_nothing_in_flight(metrics: Metrics) -> None:
    metrics.worker(0).began()
    assert read(metrics)["scoring_requests_in_flight"] == {(): 1}
    metrics.worker(0)
    assert read(metrics)["scoring_requests_in_flight"] == {(): 0}


def test_a_bank_that_was_being_cleared_does_not_count(metrics: Metrics) -> None:
    """The state a worker killed while it clears a bank leaves: half a bank, which is not used."""
    slot = metrics._slots[0]
    worker = metrics.worker(0)
    worker.observe(np.ones((4, len(COLUMNS))))
    worker.fold()
    banks = slot[metrics.layout.banks :][: np.prod(metrics.layout.banks_shape)]
    banks.reshape(metrics.layout.banks_shape)[1, 0, 0] = 1e9
    assert read(metrics)["scoring_input_window_rows"] == {(): 4}
    again = metrics.worker(0)
    again.observe(np.ones((4, len(COLUMNS))))
    again.fold()
    assert read(metrics)["scoring_input_window_rows"] == {(): 8}


def test_prometheus_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys\n"
        "from scoring.metrics import Metrics\n"
        "from tests.scoring.recorder import CONTRACT\n"
        "metrics = Metrics(CONTRACT, 1)\n"
        "metrics.worker(0).began()\n"
        "assert 'prometheus_client' not in sys.modules\n"
        "metrics.render()\n"
        "assert 'prometheus_client' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
