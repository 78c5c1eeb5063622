"""The comparison of batch scoring with pandas and scikit-learn, on few rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import batch
from scripts.errors import SlipwayError


def test_both_sides_score_the_same_rows(tmp_path: Path) -> None:
    found = batch.measure(tmp_path, rows=20_000, rounds=2)
    assert found["rows"] == 20_000
    assert {side: len(speeds) for side, speeds in found["rows_per_second"].items()} == {
        "ours": 2,
        "pandas": 2,
    }
    assert found["ratio"] > 0
    assert found["max_difference"] < batch.TOLERANCE
    assert list(tmp_path.iterdir()) == []


def test_a_side_that_predicts_otherwise_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "TOLERANCE", -1.0)
    with pytest.raises(SlipwayError, match="differ by"):
        batch.measure(tmp_path, rows=1_000, rounds=1)
