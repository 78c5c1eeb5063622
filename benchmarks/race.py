"""Programs that do the same work and end, timed in turns: batch scoring against what others do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.environments import plain_environ
from benchmarks.memory import memory_of
from scripts.errors import SlipwayError

_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Finish:
    """One program once: how long it took, and its greatest memory (PSS of all it started)."""

    name: str
    round: int
    seconds: float
    peak_mb: float


def race(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    folder: Path,
    before: Callable[[], None] = lambda: None,
) -> list[Finish]:
    """Run the commands in `folder` one after another, back and forth, so many rounds.

    They have all cores. `before` is called before each, to remove the output of the last. Raises
    SlipwayError if one fails.
    """
    finishes = []
    for number in range(1, rounds + 1):
        names = list(commands) if number % 2 else list(reversed(list(commands)))
        for name in names:
            before()
            finishes.append(_finish(name, commands[name], number, folder))
    return finishes


def speedup(finishes: Sequence[Finish], ours: str, other: str) -> float:
    """How many times as fast as `other` we are: the median of the rounds' own ratios."""
    seconds = {(each.name, each.round): each.seconds for each in finishes}
    rounds = sorted({each.round for each in finishes})
    return median(seconds[other, number] / seconds[ours, number] for number in rounds)


def _finish(name: str, command: Sequence[str], number: int, folder: Path) -> Finish:
    log, peak, began = folder / f"{name.replace(' ', '-')}.log", 0.0, time.perf_counter()
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            command, cwd=folder, env=plain_environ(), stdout=stream, stderr=stream
        ) as process,
    ):
        while True:
            try:
                code = process.wait(_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, memory_of(process.pid).pss_mb)
        seconds = time.perf_counter() - began
    if code:
        said = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        raise SlipwayError(f"{name} failed with code {code}: {''.join(said)[:300]}")
    return Finish(name, number, seconds, peak)
