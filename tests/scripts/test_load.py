"""`make load` with real locust against a real server, for a second or two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import load
from scripts.latencies import Latencies
from tests.records_schema import validate
from tests.scripts.standin import KEY, Clone, Platform, serving


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    monkeypatch.setenv("LOAD_DURATION", "1")
    monkeypatch.setenv("LOAD_USERS", "3")
    return Clone(tmp_path, monkeypatch)


def test_a_load_within_its_objectives_is_done(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.monkeypatch.setenv("SCORING_KEY", KEY)
    # Locust's own settings are none of ours: its start must not be moved by them.
    clone.monkeypatch.setenv("LOCUST_HEADLESS", "nonsense")
    with serving(key=KEY) as server:
        clone.on("load", Platform(server))
        assert load.main() == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "3 users for 1 s" in output.out
    assert "requests/s" in output.out

    record = clone.record("load")
    validate("load", record)
    assert record["requests"] > 20
    assert record["failures"] == record["error_rate"] == 0
    assert 0 < record["p50_ms"] <= record["p95_ms"] <= record["p99_ms"] <= record["max_ms"]
    assert record["users"] == 3
    assert record["objectives"] == {"p95_ms": 500.0, "error_rate": 0.0}
    page = (clone.root / record["html"]).read_text()
    assert "<html" in page
    assert "10 rows" in page
    stats = json.loads((clone.root / record["stats"]).read_text())
    assert stats["history"]
    assert sum(bar["requests"] for bar in stats["histogram"]) == record["requests"]
    kept = page + json.dumps(record) + json.dumps(stats) + output.out
    assert KEY not in kept


def test_p95_over_its_objective_is_refused_and_every_figure_kept(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.monkeypatch.setenv("LOAD_P95_MS", "20")
    with serving() as server:
        server.seconds = 0.05
        clone.on("load", Platform(server))
        assert load.main() == 3
    assert "over LOAD_P95_MS=20" in capsys.readouterr().err
    failed = clone.record("load.failed")
    validate("load", failed)
    assert failed["p95_ms"] >= 50
    assert failed["requests"] > 0
    assert failed["objectives"]["p95_ms"] == 20
    assert not (clone.records / "load.json").exists()
    assert (clone.root / failed["html"]).is_file()


def test_wrong_answers_count_as_failures(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    with serving("batches") as server:
        clone.on("load", Platform(server))
        assert load.main() == 3
    errors = capsys.readouterr().err
    assert "over LOAD_ERROR_RATE=0" in errors
    assert "the answer should hold 10 result(s)" in errors
    failed = clone.record("load.failed")
    assert 0 < failed["failures"] < failed["requests"]
    assert failed["reasons"][0]["requests"] == failed["failures"]


def test_figures_are_held_to_the_objectives_set() -> None:
    record = {
        "requests": 200,
        "failures": 10,
        "error_rate": 0.05,
        "p95_ms": 80.0,
        "reasons": [{"reason": "status 503", "requests": 10}],
        "objectives": {"p95_ms": 80.0, "error_rate": 0.05},
    }
    assert load.refusals(record) == []
    strict = {**record, "objectives": {"p95_ms": 79.0, "error_rate": 0.04}}
    assert load.refusals(strict) == [
        "p95 is 80 ms, over LOAD_P95_MS=79",
        "10 of 200 requests failed (5.00%), over LOAD_ERROR_RATE=0.04 (most often: status 503)",
    ]
    assert load.refusals({**record, "requests": 0}) == ["no request was answered"]


def test_a_service_that_answers_wrongly_is_not_worth_the_load(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving("values") as server:
        clone.on("load", Platform(server))
        assert load.main() == 3
    assert "results differ by 3" in capsys.readouterr().err


def test_nothing_deployed_is_a_usage_error(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.on("load", Platform())
    assert load.main() == 2
    assert "run `make deploy` first" in capsys.readouterr().err


def test_locust_that_cannot_run_is_told_in_one_line(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.monkeypatch.setattr(load, "requests_from", lambda sample: [{"name": "no data"}])
    with serving() as server:
        clone.on("load", Platform(server))
        assert load.main() == 1
    assert "locust ended early: KeyError" in capsys.readouterr().err


def test_percentiles_are_right_to_half_a_percent() -> None:
    latencies = Latencies()
    for millisecond in range(1, 2001):
        latencies.add(millisecond / 10)
    assert latencies.percentile(50) == pytest.approx(100, rel=0.005)
    assert latencies.percentile(95) == pytest.approx(190, rel=0.005)
    assert latencies.percentile(100) == 200
    assert Latencies().percentile(95) == 0
    assert Latencies().histogram() == []
    assert sum(bar["requests"] for bar in latencies.histogram()) == 2000
