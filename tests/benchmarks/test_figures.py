"""From rounds to medians, ratios, targets, a table and a picture."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.figures import Target, figures, footprints, ratios, targets
from benchmarks.measure import Run, Start
from benchmarks.memory import Memory
from benchmarks.show import draw, show
from benchmarks.wrk import Load

#: Requests per second by round: ours, and a peer's that a busy machine slowed in the second.
OURS, PEERS = [2000.0, 1000.0, 1800.0], [100.0, 50.0, 120.0]


def run(server: str, number: int, rate: float, rows: int = 1, connections: int = 8) -> Run:
    load = Load(100, rate, 1000 / rate, 2000 / rate, 0, 0)
    return Run(server, number, rows, connections, load, 1e6 / rate)


def both() -> list[Run]:
    return [
        run(server, number, rate, rows, connections)
        for server, rates in (("slipway linear", OURS), ("azureml", PEERS))
        for rows in (1, 100)
        for connections in (1, 8)
        for number, rate in enumerate(rates, 1)
    ]


def starts() -> list[Start]:
    return [
        Start(server, number, seconds, Memory(100.0 + number, 150.0))
        for server in ("slipway linear", "azureml")
        for number, seconds in enumerate((0.2, 0.9, 0.3), 1)
    ]


def test_figures_are_medians_of_the_rounds() -> None:
    found = figures(both())
    assert len(found) == 8
    assert found[0].requests_per_second == 1800
    assert found[0].p99_ms == pytest.approx(2000 / 1800)
    assert footprints(starts())[0].cold_start == 0.3
    assert footprints(starts())[0].pss_mb == 102


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    found = ratios(both(), ["slipway linear"], ["azureml"])
    assert len(found) == 4
    # 20, 20 and 15; of the medians it would be 18.
    assert found[0].throughput == 20
    assert found[0].p99 == pytest.approx(1 / 20)
    assert found[0].processor == pytest.approx(20)


def test_targets_are_judged_on_eight_connections_against_azureml() -> None:
    compared = ratios(both(), ["slipway linear"], ["azureml"])
    judged = {goal.name: goal for goal in targets(compared, footprints(starts()))}
    assert sorted(judged) == [
        "linear, 1 row: p99 over azureml",
        "linear, 1 row: requests/s over azureml",
        "linear, 100 rows: requests/s over azureml",
        "linear: cold start",
        "linear: memory",
    ]
    assert all(goal.met for goal in judged.values())
    assert targets(ratios(both(), ["slipway linear"], []), []) == []


@pytest.mark.parametrize(
    ("value", "bound", "met"),
    [(15.0, "at least", True), (14.9, "at least", False), (15.0, "under", False)],
)
def test_a_target_is_met_on_its_own_side(value: float, bound: str, met: bool) -> None:
    assert Target("t", value, bound, 15.0, "x").met is met  # type: ignore[arg-type]


def test_the_tables_and_the_picture_show_what_was_found(tmp_path: Path) -> None:
    compared = ratios(both(), ["slipway linear"], ["azureml"])
    judged = [Target("speed", 20.0, "at least", 15.0, "x"), Target("size", 9.0, "under", 5.0, "MB")]
    stream = io.StringIO()
    batch = {
        "median_rows_per_second": {"ours": 9e6, "pandas": 2e6},
        "peak_bytes": {"ours": 240e6, "pandas": 2.7e9},
    }
    console = Console(file=stream, width=80)
    show(console, figures(both()), footprints(starts()), compared, batch, judged)
    lines = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert any("slipway linear" in line and "1,800" in line for line in lines)
    assert any("speed" in line and "at least 15 x" in line and " yes " in line for line in lines)
    assert any("ours" in line and "9,000,000" in line and "240" in line for line in lines)
    assert any("size" in line and " no " in line for line in lines)
    draw(tmp_path / "bench.png", compared)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
