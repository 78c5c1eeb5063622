"""`make bench`: the service as it is deployed against peers, on this machine.

BENCH_PEERS names peers (azureml mlflow bentoml mlserver, or all), BENCH_SECONDS the length of one
load, BENCH_ROUNDS how often all is measured. Tables on the terminal; all rounds in
build/bench/bench.json, a picture in build/bench/bench.png. A target that is not met is exit 3.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Target, figures, footprints, ratios, targets
from benchmarks.wrk import require_wrk
from scripts import console
from scripts.errors import Refused, UsageError
from scripts.records import write_atomic
from scripts.verb import Context, Result, now, run_verb

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.contestants import Contestant
    from benchmarks.subject import Subject

_PEERS = ("azureml", "mlflow", "bentoml", "mlserver")
_ROWS = (1, 100, 10_000)
_CONNECTIONS = (1, 8)
_SECONDS, _ROUNDS = 2, 5
_BATCH_ROWS, _BATCH_ROUNDS, _BATCH_TARGET = 10_000_000, 3, 3.0
#: Of its core; a load that took more measured wrk, not the server.
_BUSY = 0.95


def choose_peers(text: str) -> list[str]:
    """The peers that BENCH_PEERS names. Raises UsageError for one that is unknown."""
    names = list(dict.fromkeys(text.replace(",", " ").split()))
    if names == ["all"]:
        return list(_PEERS)
    for name in names:
        if name not in _PEERS:
            raise UsageError(
                f"BENCH_PEERS={text}: there is no peer {name!r}",
                f"name some of {', '.join(_PEERS)}, or all",
            )
    return names


def whole(call: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most`. Raises UsageError."""
    text = call.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise UsageError(f"{name}={text}", f"{name} should be a whole number from 1 to {most}")
    return int(text)


def run(context: Context) -> Result:
    """Measure, show, and judge."""
    from benchmarks.batch import measure as measure_batch
    from benchmarks.environments import blas
    from benchmarks.machine import machine, two_cores
    from benchmarks.measure import Plan, measure
    from benchmarks.show import draw, show
    from benchmarks.subject import make_subject

    peers = choose_peers(context.call.get("BENCH_PEERS", "azureml"))
    seconds = whole(context.call, "BENCH_SECONDS", _SECONDS, 600)
    rounds = whole(context.call, "BENCH_ROUNDS", _ROUNDS, 100)
    require_wrk()
    server_core, client_core = two_cores()
    folder = context.root / "build" / "bench"
    console.step("batch scoring against pandas with scikit-learn, on all cores")
    batch = measure_batch(folder, _BATCH_ROWS, min(rounds, _BATCH_ROUNDS))
    subject = make_subject(context.root, context.settings, folder)
    contestants = _contestants(context.root, folder, subject, peers)
    os.sched_setaffinity(0, {client_core})
    plan = Plan(
        rounds=rounds,
        seconds=seconds,
        rows=[subject.rows(count) for count in _ROWS],
        connections=_CONNECTIONS,
        server_core=server_core,
        client_core=client_core,
        folder=folder,
    )
    measured_on = machine()
    loads = rounds * len(contestants) * len(_ROWS) * len(_CONNECTIONS)
    with _progress(rounds * len(contestants) + loads) as progress:
        starts, runs = measure(contestants, plan, progress)

    ours = [each.name for each in contestants if each.package is None]
    compared = ratios(runs, ours, [each.name for each in contestants if each.package])
    found, sizes = figures(runs), footprints(starts)
    judged = [
        *targets(compared, sizes),
        Target("batch scoring over pandas", batch["ratio"], "at least", _BATCH_TARGET, "x"),
    ]
    document = {
        "time": now(),
        "machine": measured_on,
        "seconds": seconds,
        "rounds": rounds,
        "servers": {
            each.name: {
                "packages": each.environment.packages,
                "blas": blas(each.environment),
                "command": " ".join(each.command(0)).replace(f"{context.root}/", ""),
            }
            for each in contestants
        },
        "starts": [asdict(each) for each in starts],
        "runs": [asdict(each) for each in runs],
        "medians": [asdict(each) for each in found],
        "footprints": [asdict(each) for each in sizes],
        "ratios": [asdict(each) for each in compared],
        "batch": batch,
        "targets": [{**asdict(each), "met": each.met} for each in judged],
    }
    text = json.dumps(document, indent=2, allow_nan=False)
    write_atomic(folder / "bench.json", f"{text}\n".encode())
    draw(folder / "bench.png", compared)
    show(_console(), found, sizes, compared, batch, judged)
    if limited := {run.server for run in runs if run.load.client_busy > _BUSY}:
        console.warning(f"wrk was at its limit: {', '.join(sorted(limited))} could answer more")
    return _outcome(judged)


def _contestants(
    root: Path, folder: Path, subject: Subject, peers: Sequence[str]
) -> list[Contestant]:
    """Ours by runtime, then the peers, each in its own environment."""
    from benchmarks.contestants import LOCKS, PEERS, slipway
    from benchmarks.environments import install

    found = []
    for runtime, bundle in subject.bundles.items():
        lock = bundle.path / "requirements.txt"
        found.append(slipway(subject, runtime, install(folder / f"slipway-{runtime}", lock)))
    for name in peers:
        make, takes_strings = PEERS[name]
        if takes_strings or subject.numbers_only:
            found.append(make(subject, install(folder / name, LOCKS / f"{name}.txt")))
        else:
            console.warning(f"{name} is left out: it takes numbers only, and the model has strings")
    return found


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[str], None]]:
    """What tells of each step: a bar on a terminal, else a line where a round begins."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stdout.isatty():
        told: set[str] = set()

        def line(text: str) -> None:
            part = text.partition(":")[0]
            if part not in told:
                told.add(part)
                console.step(part)

        yield line
        return
    bar, left, text = BarColumn(), TimeRemainingColumn(), TextColumn("  {task.description}")
    with Progress(bar, left, text, console=_console(), transient=True) as shown:
        task = shown.add_task("", total=steps)

        def advance(text: str) -> None:
            shown.update(task, advance=1, description=text)

        yield advance


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _outcome(judged: Sequence[Target]) -> Result:
    """The end: all targets met, or Refused with those that are not."""
    missed = [goal for goal in judged if not goal.met]
    where = "build/bench/bench.json and bench.png hold the figures"
    if missed:
        names = "; ".join(f"{goal.name} is {goal.value:.3g} {goal.unit}" for goal in missed)
        raise Refused(
            f"{len(missed)} of {len(judged)} targets are not met: {names}",
            f"{where}; on a busy machine, run it again when nothing else does",
        )
    met = f"all {len(judged)} targets are met" if judged else "measured"
    return Result(f"{met}; {where}")


def main() -> int:
    """Run the benchmark; the exit codes are those of every verb."""
    return run_verb("bench", run, outcome=False)


if __name__ == "__main__":
    sys.exit(main())
