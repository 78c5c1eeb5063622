"""Statistics of the inputs: against numpy, and against what `make evaluate` computes."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from scoring import sample
from scoring.drift import Inputs
from scoring.errors import StartError
from scoring.metrics import Metrics
from scripts.dataset import population_stability
from tests.scoring.contracts import contract

RANDOM = np.random.default_rng(7)


def numbers(count: int, mean: float = 0.0, spread: float = 1.0, missing: int = 0) -> Any:
    values = RANDOM.normal(mean, spread, count)
    values[:missing] = np.nan
    return pd.Series(RANDOM.permutation(values))


def texts(count: int, choices: list[str], missing: int = 0) -> Any:
    values = RANDOM.choice(np.array(choices, dtype=object), count)
    values[:missing] = None
    return pd.Series(values, dtype=object)


TRAINED = {
    "plain": numbers(500),
    "far": numbers(500, 1e9, 0.01),
    "gaps": numbers(500, 5, 2, missing=50),
    "steps": pd.Series([0.0] * 400 + [1.0] * 60 + [2.0] * 40),
    "constant": pd.Series([3.0] * 500),
    "colour": texts(500, ["red", "green", "blue"], missing=20),
    "town": texts(500, [f"town {number}" for number in range(80)]),
}
LIVE = {
    "plain": numbers(300, 0.5),
    "far": numbers(300, 1e9 + 1, 0.02),
    "gaps": numbers(300, 5, 2),
    "steps": pd.Series([0.0, 1.0, 2.0, 1.5, -1.0] * 60),
    "constant": pd.Series([3.0, 4.0] * 150),
    "colour": texts(300, ["red", "blue", "yellow", "(others)"], missing=100),
    "town": texts(300, [f"town {number}" for number in range(120)]),
}


def fold(columns: dict[str, Any], live: dict[str, Any], requests: int = 3) -> Any:
    """Inputs and their bank, after `live` came in as many requests."""
    inputs = Inputs(contract(columns))
    bank = np.zeros(inputs.shape)
    parts = [np.array_split(values.to_numpy(), requests) for values in live.values()]
    for request in zip(*parts, strict=True):
        inputs.add(list(request), bank)
    return inputs, bank


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("live", [TRAINED, LIVE], ids=["same", "moved"])
def test_psi_is_what_the_data_verb_computes(name: str, live: dict[str, Any]) -> None:
    inputs, bank = fold(TRAINED, live)
    at = inputs.names.index(name)
    reference = contract(TRAINED).reference[name]
    found = population_stability(reference, live[name])
    assert found
    assert inputs.psi(at, bank) == pytest.approx(found[0], abs=1e-12)
    # A constant has a single bin, in which everything falls.
    assert (found[0] > 0) == (live is LIVE and name != "constant")


@pytest.mark.parametrize("name", [name for name in TRAINED if TRAINED[name].dtype != object])
def test_moments_are_those_of_numpy(name: str) -> None:
    inputs, bank = fold(TRAINED, LIVE)
    at = inputs.names.index(name)
    moments = inputs.moments(at, bank)
    assert moments.mean == pytest.approx(np.nanmean(LIVE[name]), rel=1e-12)
    assert moments.stddev == pytest.approx(np.nanstd(LIVE[name]), rel=1e-4)
    before = inputs.reference(at)
    assert before
    assert before.mean == pytest.approx(np.nanmean(TRAINED[name]))
    assert before.stddev == pytest.approx(np.nanstd(TRAINED[name]))
    assert before.missing_ratio == TRAINED[name].isna().mean()


def test_missing_values_are_counted_and_nothing_else_about_them() -> None:
    inputs, bank = fold(TRAINED, TRAINED)
    gaps = inputs.moments(inputs.names.index("gaps"), bank)
    assert gaps.missing_ratio == 0.1
    assert gaps.mean == pytest.approx(np.nanmean(TRAINED["gaps"]))
    colour = inputs.moments(inputs.names.index("colour"), bank)
    assert colour.missing_ratio == 0.04
    assert np.isnan([colour.mean, colour.stddev]).all()


def test_a_matrix_counts_as_its_columns_do() -> None:
    columns = {name: TRAINED[name] for name in ("plain", "gaps", "steps")}
    live = {name: LIVE[name] for name in columns}
    inputs, bank = fold(columns, live)
    whole = np.zeros(inputs.shape)
    inputs.add(np.column_stack(list(live.values())), whole)
    assert whole == pytest.approx(bank)


def test_a_column_without_statistics_has_its_own_figures_only() -> None:
    inputs = Inputs(contract(TRAINED, without=("plain", "colour")))
    bank = np.zeros(inputs.shape)
    inputs.add([values.to_numpy() for values in LIVE.values()], bank)
    assert inputs.reference(0) is None
    assert inputs.psi(0, bank) is None
    assert inputs.psi(inputs.names.index("colour"), bank) is None
    assert inputs.moments(0, bank).mean == pytest.approx(LIVE["plain"].mean())


def test_a_column_that_was_always_missing_has_no_psi() -> None:
    columns = {"void": pd.Series([np.nan] * 20)}
    inputs, bank = fold(columns, {"void": pd.Series([1.0, np.nan])}, requests=1)
    assert inputs.psi(0, bank) is None
    assert inputs.moments(0, bank).missing_ratio == 0.5


def test_the_largest_numbers_do_not_spoil_what_follows() -> None:
    inputs = Inputs(contract({"plain": TRAINED["plain"]}))
    bank = np.zeros(inputs.shape)
    inputs.add(np.array([[1.7e308], [-1.7e308]]), bank)
    inputs.add(np.zeros((100, 1)), bank)
    assert np.isfinite(bank).all()
    assert np.isfinite(inputs.moments(0, bank)).all()


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"edges": "none"}, "edges"), ({"counts": [1, 2]}, "2 counts do not fit 9 edges")],
)
def test_damaged_statistics_end_the_start(change: dict[str, Any], problem: str) -> None:
    whole = contract({"plain": TRAINED["plain"]})
    damaged = {"plain": whole.reference["plain"] | change}
    with pytest.raises(StartError, match=r"'plain'.*" + problem) as raised:
        Metrics(msgspec.structs.replace(whole, reference=damaged), workers=1)
    assert raised.value.exit_code == 1


def sampled(requests: list[Any], columns: int = 1) -> tuple[np.ndarray[Any, Any], int]:
    """The bank's first column, and the rows taken, after one fold of these requests."""
    trained = {f"c{number}": TRAINED["plain"] for number in range(columns)}
    metrics = Metrics(contract(trained), workers=1)
    worker = metrics.worker(0)
    for request in requests:
        worker.observe(request)
    worker.fold()
    bank = metrics.bank()
    return bank[0], int(bank[0, 0])


def test_one_fold_takes_a_bounded_sample() -> None:
    assert sampled([np.zeros((1, 1))] * 10_000)[1] == sample.FOLD_ROWS
    assert sample.FOLD_ROWS / 2 < sampled([np.zeros((100_000, 1))])[1] <= sample.FOLD_ROWS
    small_and_large = [*([np.zeros((1, 1))] * 500), np.zeros((100_000, 1))]
    assert sampled(small_and_large)[1] <= sample.FOLD_ROWS
    rows = sampled([np.zeros((5_000, 400))], columns=400)[1]
    assert 5 < rows <= sample.FOLD_VALUES // 400


def test_the_sample_is_spread_evenly_over_the_rows() -> None:
    requests = [np.full((rows, 1), float(rows)) for rows in (100, 300, 1_600)]
    bank, rows = sampled(requests)
    expected = np.average([100, 300, 1_600], weights=[1, 3, 16])
    assert bank[2] / rows == pytest.approx(expected - TRAINED["plain"].mean(), rel=0.01)


def test_what_is_not_sampled_is_not_kept() -> None:
    worker = Metrics(contract({"plain": TRAINED["plain"]}), workers=1).worker(0)
    first, late = np.zeros((5_000, 1)), np.zeros((10, 1))
    free = sys.getrefcount(first), sys.getrefcount(late)
    worker.observe(first)
    worker.observe(late)
    assert (sys.getrefcount(first), sys.getrefcount(late)) == (free[0] + 1, free[1])
    worker.fold()
    assert sys.getrefcount(first) == free[0]


def test_old_rows_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "BANK_ROWS", 100)
    monkeypatch.setattr(sample, "BANK_SECONDS", 0.0)
    metrics = Metrics(contract({"plain": TRAINED["plain"]}), workers=1)
    worker = metrics.worker(0)

    def mean_after(value: float) -> float:
        worker.observe(np.full((100, 1), value))
        worker.fold()
        return metrics.inputs.moments(0, metrics.bank()).mean

    # The last bank that was closed still counts, those before it do not.
    assert [mean_after(value) for value in (1, 2, 3, 4)] == pytest.approx([1, 2, 3, 4])
    worker.observe(np.full((50, 1), 10.0))
    worker.fold()
    assert metrics.bank()[0, 0] == 150
    assert b"scoring_input_rows_total 450.0" in metrics.render()


def test_few_rows_are_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "BANK_SECONDS", 0.0)
    metrics = Metrics(contract({"plain": TRAINED["plain"]}), workers=1)
    worker = metrics.worker(0)
    for _ in range(20):
        worker.observe(np.ones((100, 1)))
        worker.fold()
    assert metrics.bank()[0, 0] == 2_000
