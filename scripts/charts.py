"""Geometry of the report's small charts: figures in, positions for inline SVG out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


def round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten: where an axis may end."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= value * 0.999999)


@dataclass(frozen=True)
class Lines:
    """A line through time: points and an area for SVG, and what stands at the axes."""

    width: int
    height: int
    points: str
    area: str
    top: float
    last_at: float
    #: Height of the objective's line, or None where it is above the picture.
    objective_y: float | None


def line(
    history: Sequence[Mapping[str, float]],
    name: str,
    *,
    objective: float | None = None,
    width: int = 440,
    height: int = 130,
) -> Lines | None:
    """`name` of every second of `history`; None if there are fewer than two seconds."""
    if len(history) < 2:
        return None
    greatest = max(second[name] for second in history)
    # An objective far above all figures would press the line flat: it is then only told in words.
    shown = objective is not None and objective <= 4 * greatest
    top = round_up(max(greatest, objective or 0) if shown else greatest)
    last = history[-1]["at"]
    # The first second began at 0, where no figure stands yet.
    begin = {**history[0], "at": 0.0}
    places = [
        (width * second["at"] / last, height - height * second[name] / top)
        for second in (begin, *history)
    ]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    area = f"{places[0][0]:.1f},{height} {points} {places[-1][0]:.1f},{height}"
    objective_y = height - height * (objective or 0) / top if shown else None
    return Lines(width, height, points, area, top, last, objective_y)


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram."""

    x: float
    y: float
    width: float
    height: float
    title: str


def bars(
    histogram: Sequence[Mapping[str, float]], *, width: int = 440, height: int = 130
) -> list[Bar]:
    """The latency histogram; each bar spans an equal factor of time."""
    most = max((bar["requests"] for bar in histogram), default=0)
    if not most:
        return []
    step = width / len(histogram)
    return [
        Bar(
            round(number * step + 0.5, 2),
            round(height - height * bar["requests"] / most, 2),
            round(step - 1, 2),
            round(height * bar["requests"] / most, 2),
            f"{bar['from_ms']:.3g} to {bar['to_ms']:.3g} ms: {bar['requests']:.0f} requests",
        )
        for number, bar in enumerate(histogram)
    ]


@dataclass(frozen=True)
class Mark:
    """A figure on the gate's scale; `x` in percent of its width, better to the right.

    `off` says that it lies beyond the scale, which ends there.
    """

    kind: str
    value: float
    x: float
    off: bool = False


def gate_scale(evaluation: Mapping[str, Any]) -> list[Mark]:
    """Baseline, champion, what was needed and candidate on one scale; [] without a candidate.

    A baseline far below would press the others together, so it may lie off the scale.
    """
    sign = 1 if evaluation.get("greater_is_better", True) else -1
    candidate = (evaluation.get("candidate") or {}).get("value")
    champion = (evaluation.get("champion") or {}).get("value")
    baseline, margin = evaluation.get("baseline"), evaluation.get("required_margin") or 0
    if not isinstance(candidate, int | float):
        return []
    values = {"candidate": candidate}
    if isinstance(champion, int | float):
        values["champion"] = champion
        if margin:
            values["needed"] = champion + sign * margin
    elif isinstance(baseline, int | float):
        values["baseline"] = baseline
    places = {kind: sign * value for kind, value in values.items()}
    low, high = min(places.values()), max(places.values())

    def x(place: float) -> float:
        return round(30 + 55 * ((place - low) / (high - low) if high > low else 0.5), 2)

    marks = [Mark(kind, value, x(places[kind])) for kind, value in values.items()]
    if isinstance(baseline, int | float) and "baseline" not in values:
        place = x(sign * baseline)
        marks.append(Mark("baseline", baseline, min(max(place, 6), 96), not 6 <= place <= 96))
    return marks
