"""Contestants as processes: checked answers, memory, and nothing left behind."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import pytest

from benchmarks.machine import two_cores
from benchmarks.memory import tree
from benchmarks.processes import running
from scripts.errors import SlipwayError
from tests.benchmarks.conftest import ROWS, doubler


def test_a_server_is_measured_with_its_children_and_ends_with_them(tmp_path: Path) -> None:
    core = two_cores()[0]
    with running(doubler(tmp_path), core, tmp_path / "log") as server:
        assert server.cold_start > 0
        assert server.answer(ROWS)
        assert server.processor_seconds() > 0
        processes = tree(server._process.pid)
        assert len(processes) == 2
        assert {tuple(process.cpu_affinity()) for process in processes} == {(core,)}
        memory = server.memory()
        assert 0 < memory.pss_mb < memory.rss_mb
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert process.status() == psutil.STATUS_ZOMBIE


def test_a_wrong_answer_says_which_row(tmp_path: Path) -> None:
    with (
        running(doubler(tmp_path, every=1), two_cores()[0], tmp_path / "log") as server,
        pytest.raises(SlipwayError, match=r"doubler answers 2 rows wrongly: row 1 is 0.5, not 2.0"),
    ):
        server.answer(ROWS)


def test_a_server_that_does_not_start_shows_its_last_word(tmp_path: Path) -> None:
    program = "raise SystemExit('no such model')"
    contestant = doubler(tmp_path, program=program)
    with (
        pytest.raises(SlipwayError, match="doubler does not start: no such model"),
        running(contestant, two_cores()[0], tmp_path / "log"),
    ):
        pass


@pytest.mark.parametrize(
    ("predictions", "problem"),
    [([2.0, 8.00001], None), ([2, 8], None), ([2.0], "1 predictions"), ([2.0, "8"], "row 2")],
)
def test_predictions_are_held_against_the_model(predictions: list[object], problem: str) -> None:
    found = ROWS.problem(predictions)
    assert found is None if problem is None else problem in (found or "")
