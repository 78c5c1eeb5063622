"""What the inputs look like, against the statistics the model was trained on.

Statistics of one worker live in a bank: an array of float64, one row for each column of the model,

    rows, missing, sum, sum of squares, then the counts in the reference's bins or categories

where values are shifted by the reference's mean before they are summed, so that squares of large
numbers do not swallow a small spread. Banks of several workers add up cell by cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.contract import FILE_NAME, Contract
from scoring.errors import StartError
from scoring.parse import Features

Bank = npt.NDArray[np.float64]

_ROWS, _MISSING, _SUM, _SQUARES, _BINS = range(5)
#: The category all others are summed up as; `scripts/dataset.py` writes it.
_OTHERS = "(others)"
#: Beyond this a number would overflow the sum of squares, and with it all later statistics.
_LARGEST = 1e100


class Moments(NamedTuple):
    """Mean and standard deviation (NaN where no number is known), and the share of missing rows."""

    mean: float
    stddev: float
    missing_ratio: float


class Reference(msgspec.Struct, frozen=True):
    """A column in the training rows, as `scripts/dataset.py` describes it.

    `counts` of a number are rows in the bins between `edges`; it has none if all were missing.
    """

    missing: int = 0
    mean: float = 0.0
    std: float = 0.0
    edges: list[float] = []
    counts: list[int] = []
    categories: dict[str, int] | None = None

    @property
    def named(self) -> list[str]:
        """The categories that are counted one by one."""
        return [name for name in self.categories or () if name != _OTHERS]

    @property
    def bins(self) -> list[int]:
        """Rows in each bin, or in each named category and in all others; then those missing."""
        if self.categories is None:
            return [*self.counts, self.missing]
        named = (self.categories[name] for name in self.named)
        return [*named, self.categories.get(_OTHERS, 0), self.missing]


class Inputs:
    """The columns of a contract with their reference statistics; a column may have none.

    Raises StartError if the reference does not hold together.
    """

    def __init__(self, contract: Contract) -> None:
        self.names = contract.names
        self._references = [_reference_of(contract, name) for name in self.names]
        self._is_number = [column.type == "number" for column in contract.columns]
        self._number_at = np.flatnonzero(self._is_number)
        numbers = [self._references[at] or Reference() for at in self._number_at]
        self._shift = np.array([each.mean for each in numbers])
        self._edges = _padded([each.edges for each in numbers])
        self._categories = {
            at: {name: _BINS + order for order, name in enumerate(each.named if each else ())}
            for at, each in enumerate(self._references)
            if not self._is_number[at]
        }
        widest = max((len(each) for each in self._categories.values()), default=0)
        #: Shape of a bank.
        self.shape = (len(self.names), _BINS + 1 + max(widest, len(self._edges)))

    def add(self, features: Features, bank: Bank) -> None:
        """Count rows into a bank. The bank is only ever added to, in one pass at the end."""
        delta = np.zeros(self.shape)
        if isinstance(features, np.ndarray):
            self._add_numbers(features, delta)
        else:
            if len(self._number_at):
                self._add_numbers(np.column_stack([features[at] for at in self._number_at]), delta)
            for at, bins in self._categories.items():
                _add_strings(features[at], bins, delta[at])
        bank += delta

    def _add_numbers(self, matrix: npt.NDArray[np.float64], delta: Bank) -> None:
        """Count a matrix of the number columns, all at once: some models have thousands."""
        absent = np.isnan(matrix)
        with np.errstate(over="ignore"):
            shifted = np.clip(matrix - self._shift, -_LARGEST, _LARGEST)
        shifted[absent] = 0.0
        # As many edges as are not above the value: np.searchsorted(edges, value, side="right").
        bins = np.zeros(matrix.shape, dtype=np.intp)
        for edge in self._edges:
            bins += matrix >= edge
        width = self.shape[1]
        flat = bins + (self._number_at * width + _BINS)
        delta += np.bincount(flat[~absent], minlength=delta.size).reshape(delta.shape)
        delta[self._number_at, _ROWS] = len(matrix)
        delta[self._number_at, _MISSING] = absent.sum(axis=0)
        delta[self._number_at, _SUM] = shifted.sum(axis=0)
        delta[self._number_at, _SQUARES] = np.einsum("ij,ij->j", shifted, shifted)

    def moments(self, at: int, bank: Bank) -> Moments:
        """The statistics of the column at this position. The bank must have rows."""
        rows, missing, total, squares = bank[at, :_BINS].tolist()
        present = rows - missing
        if not self._is_number[at] or present <= 0:
            return Moments(np.nan, np.nan, missing / rows)
        mean = total / present
        variance = max(squares / present - mean * mean, 0.0)
        shift = float(self._shift[np.searchsorted(self._number_at, at)])
        return Moments(shift + mean, variance**0.5, missing / rows)

    def reference(self, at: int) -> Moments | None:
        """The same statistics of the training rows, where they are known."""
        reference = self._references[at]
        if reference is None:
            return None
        ratio = reference.missing / sum(reference.bins)
        if not self._is_number[at] or not reference.counts:
            return Moments(np.nan, np.nan, ratio)
        return Moments(reference.mean, reference.std, ratio)

    def psi(self, at: int, bank: Bank) -> float | None:
        """The column's population stability index; None without a reference or without rows."""
        reference = self._references[at]
        if reference is None or not bank[at, _ROWS]:
            return None
        before = reference.bins
        if len(before) < 2:  # numbers of which none was known
            return None
        now = bank[at, _BINS : _BINS + len(before) - 1].tolist()
        return population_stability(before, [*now, float(bank[at, _MISSING])])


def population_stability(before: Sequence[float], now: Sequence[float]) -> float:
    """The population stability index of two histograms with the same bins, neither of them empty.

    The sum over bins of (q - p) ln(q / p), p and q being the shares before and now. Half a row
    in an empty bin keeps the logarithm finite; a bin empty in both says nothing.
    """
    kept = [(old, new) for old, new in zip(before, now, strict=True) if old or new]
    if len(kept) < 2:
        return 0.0
    old, new = np.asarray(kept, dtype=np.float64).T
    p, q = (np.maximum(each, 0.5) / each.sum() for each in (old, new))
    return float(((q - p) * np.log(q / p)).sum())


def _reference_of(contract: Contract, name: str) -> Reference | None:
    if name not in contract.reference:
        return None
    try:
        reference = msgspec.convert(contract.reference[name], Reference)
    except msgspec.ValidationError as error:
        problem = str(error)
    else:
        if not sum(reference.bins):
            return None
        if not reference.counts or len(reference.counts) == len(reference.edges) + 1:
            return reference
        problem = f"{len(reference.counts)} counts do not fit {len(reference.edges)} edges"
    raise StartError(
        f"{FILE_NAME} is not a model's contract: reference of column {name!r}: {problem}",
        exit_code=1,
    )


def _padded(edges: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Edges of shape (most edges, columns); no number reaches those that a column lacks."""
    padded = np.full((max(map(len, edges), default=0), len(edges)), np.inf)
    for at, each in enumerate(edges):
        padded[: len(each), at] = each
    return padded


def _add_strings(values: npt.NDArray[Any], bins: Mapping[str, int], delta: Bank) -> None:
    """Count a string column; what the reference does not name is counted after what it does."""
    others = _BINS + len(bins)
    for value, count in Counter(values.tolist()).items():
        at = _MISSING if value is None else bins.get(value, others)
        delta[at] += count
    delta[_ROWS] = len(values)
