"""From rounds to figures: medians, ratios to a peer, and whether the targets are met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from benchmarks.measure import Run, Start

#: The peer that the targets are set against.
AGAINST = "azureml"

#: How many times the peer's requests per second, by runtime and rows, on 8 connections.
THROUGHPUT = {
    "linear": {1: 15.0, 100: 12.0, 10_000: 8.0},
    "onnx": {1: 10.0, 100: 5.0, 10_000: 3.0},
}
TARGET_CONNECTIONS = 8
#: p99 on 1 row over the peer's.
P99_RATIO = 0.1
COLD_START_SECONDS = 0.5
MEMORY_MB = {"linear": 130.0, "onnx": 170.0}


@dataclass(frozen=True)
class Figure:
    """Medians over the rounds of one server under one load."""

    server: str
    rows: int
    connections: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    processor_us: float


@dataclass(frozen=True)
class Footprint:
    """Medians over the rounds of one server: seconds to the first 200, MB after the load."""

    server: str
    cold_start: float
    pss_mb: float
    rss_mb: float


@dataclass(frozen=True)
class Ratio:
    """A server over a peer under one load: the median of the rounds' own ratios."""

    server: str
    peer: str
    rows: int
    connections: int
    throughput: float
    p99: float
    #: The peer's processor time for a request over ours.
    processor: float


@dataclass(frozen=True)
class Target:
    """What was asked for and what came; `bound` says which side of `limit` is met."""

    name: str
    value: float
    bound: Literal["at least", "under"]
    limit: float
    unit: str

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.bound == "at least" else self.value < self.limit


def figures(runs: Sequence[Run]) -> list[Figure]:
    """One for each server and load, in the order they were first measured."""
    keys = dict.fromkeys((run.server, run.rows, run.connections) for run in runs)
    return [
        Figure(
            *key,
            requests_per_second=median(run.load.requests_per_second for run in mine),
            p50_ms=median(run.load.p50_ms for run in mine),
            p99_ms=median(run.load.p99_ms for run in mine),
            processor_us=median(run.processor_us for run in mine),
        )
        for key in keys
        if (mine := [run for run in runs if (run.server, run.rows, run.connections) == key])
    ]


def footprints(starts: Sequence[Start]) -> list[Footprint]:
    """One for each server."""
    return [
        Footprint(
            name,
            median(start.cold_start for start in mine),
            median(start.memory.pss_mb for start in mine),
            median(start.memory.rss_mb for start in mine),
        )
        for name in dict.fromkeys(start.server for start in starts)
        if (mine := [start for start in starts if start.server == name])
    ]


def ratios(runs: Sequence[Run], ours: Iterable[str], peers: Iterable[str]) -> list[Ratio]:
    """Each of ours over each peer, round by round, so that what a round suffered cancels out."""
    by_key = {(run.server, run.rows, run.connections, run.round): run for run in runs}
    loads = dict.fromkeys((run.rows, run.connections) for run in runs)
    rounds = sorted({run.round for run in runs})
    peers = list(peers)
    found = []
    for server in ours:
        for peer in peers:
            for load in loads:
                pairs = [
                    (by_key[server, *load, number], by_key[peer, *load, number])
                    for number in rounds
                ]
                found.append(
                    Ratio(
                        server,
                        peer,
                        *load,
                        median(
                            a.load.requests_per_second / b.load.requests_per_second
                            for a, b in pairs
                        ),
                        median(a.load.p99_ms / b.load.p99_ms for a, b in pairs),
                        median(b.processor_us / max(a.processor_us, 1e-9) for a, b in pairs),
                    )
                )
    return found


def targets(found: Sequence[Ratio], sizes: Sequence[Footprint]) -> list[Target]:
    """The targets that what was measured can be held against; servers are `slipway <runtime>`."""
    judged = []
    for ratio in found:
        runtime = ratio.server.removeprefix("slipway ")
        if ratio.peer != AGAINST or ratio.connections != TARGET_CONNECTIONS:
            continue
        what = f"{runtime}, {ratio.rows:,} row{'s' if ratio.rows > 1 else ''}"
        limit = THROUGHPUT.get(runtime, {}).get(ratio.rows)
        if limit is not None:
            name = f"{what}: requests/s over {AGAINST}"
            judged.append(Target(name, ratio.throughput, "at least", limit, "x"))
        if ratio.rows == 1 and runtime in THROUGHPUT:
            name = f"{what}: p99 over {AGAINST}"
            judged.append(Target(name, ratio.p99, "under", P99_RATIO, "x"))
    for size in sizes:
        runtime = size.server.removeprefix("slipway ")
        if runtime in MEMORY_MB and runtime != size.server:
            start = Target(
                f"{runtime}: cold start", size.cold_start, "under", COLD_START_SECONDS, "s"
            )
            memory = Target(f"{runtime}: memory", size.pss_mb, "under", MEMORY_MB[runtime], "MB")
            judged += [start, memory]
    return judged
