"""How long answers took."""

from __future__ import annotations

import math
from collections import Counter


class Latencies:
    """A histogram of ms to four significant digits, so that an hour takes no more memory."""

    def __init__(self) -> None:
        self._counts: Counter[float] = Counter()
        self.count = 0

    def add(self, milliseconds: float) -> None:
        """Count one latency."""
        self._counts[float(f"{milliseconds:.4g}")] += 1
        self.count += 1

    def percentile(self, part: float) -> float:
        """The latency in ms that `part` percent stay within (nearest rank); 0 if there is none."""
        rank, seen = math.ceil(self.count * part / 100), 0
        for latency in sorted(self._counts):
            seen += self._counts[latency]
            if seen >= rank:
                return latency
        return 0.0

    def histogram(self, bars: int = 40) -> list[dict[str, float]]:
        """Counts between bounds in ms that grow by equal factors, for a plot on a log scale."""
        if not self.count:
            return []
        low = max(min(self._counts), 0.01)
        factor = max((max(self._counts) / low) ** (1 / bars), 1.0001)
        counts: Counter[int] = Counter()
        for latency, times in self._counts.items():
            counts[min(int(math.log(max(latency, low) / low, factor)), bars - 1)] += times
        return [
            {
                "from_ms": round(low * factor**bar, 4),
                "to_ms": round(low * factor ** (bar + 1), 4),
                "requests": counts[bar],
            }
            for bar in range(bars)
        ]
