"""`make bench` itself: what it refuses, and one short run against azureml-inference-server-http."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import choose_peers, whole
from scripts.errors import UsageError
from tests.e2e.conftest import lay_out
from tests.rooms import write_room


@pytest.fixture
def clone(root: Path, tmp_path: Path) -> Path:
    """A clone with a model room of the tests' own."""
    lay_out(root, tmp_path / "clone")
    write_room(tmp_path / "clone")
    return tmp_path / "clone"


def bench(clone: Path, *words: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLIPWAY_", "MAKE", "PYTEST_"))
    }
    return subprocess.run(
        ["make", "bench", *words],
        cwd=clone,
        env={**kept, "RUNNER": "here"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_peers_are_chosen_by_name() -> None:
    assert choose_peers("mlflow, azureml mlflow") == ["mlflow", "azureml"]
    assert choose_peers("all") == ["azureml", "mlflow", "bentoml", "mlserver"]
    with pytest.raises(UsageError, match="'flask'"):
        choose_peers("azureml flask")


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "fast", "101"])
def test_rounds_are_whole_numbers(text: str) -> None:
    assert whole({"BENCH_ROUNDS": "3"}, "BENCH_ROUNDS", 5, 100) == 3
    assert whole({}, "BENCH_ROUNDS", 5, 100) == 5
    with pytest.raises(UsageError, match=f"BENCH_ROUNDS={text}"):
        whole({"BENCH_ROUNDS": text}, "BENCH_ROUNDS", 5, 100)


def test_a_wrong_call_is_refused_before_anything_is_done(clone: Path) -> None:
    done = bench(clone, "BENCH_PEERS=flask")
    assert "BENCH_PEERS=flask: there is no peer 'flask'" in done.stderr
    assert "Error 2" in done.stderr
    assert not (clone / "build" / "bench").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="not run: there is no wrk")
def test_a_short_run_leaves_all_rounds_and_a_picture(clone: Path) -> None:
    done = bench(clone, "BENCH_SECONDS=1", "BENCH_ROUNDS=1")
    # Which targets a busy machine meets in a second is no matter here.
    assert done.returncode == 0 or "targets are not met" in done.stderr, done.stdout + done.stderr
    found = json.loads((clone / "build/bench/bench.json").read_text())
    servers = set(found["servers"])
    assert "azureml" in servers
    assert any(name.startswith("slipway ") for name in servers)
    loads = {(run["rows"], run["connections"]) for run in found["runs"]}
    assert loads == {(rows, each) for rows in (1, 100, 10_000) for each in (1, 8)}
    assert len(found["runs"]) == 6 * len(servers)
    assert all(run["load"]["wrong"] == run["load"]["broken"] == 0 for run in found["runs"])
    assert found["servers"]["azureml"]["packages"]["azureml-inference-server-http"] >= "1.5"
    assert {start["server"] for start in found["starts"]} == servers
    assert found["machine"]["processor"]
    assert {goal["met"] for goal in found["targets"]} <= {True, False}
    assert "SCORING_KEY" not in json.dumps(found)
    assert (clone / "build/bench/bench.png").read_bytes().startswith(b"\x89PNG")
    assert "azureml" in done.stdout
