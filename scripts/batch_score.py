"""`make batch-score`: score files with the champion, or MODEL_VERSION, and leave the service alone."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.formats import seconds, size
from scripts.verb import Context, Result, run_verb

if TYPE_CHECKING:
    from scoring.batch import Progress, Summary

#: Seconds between two lines of progress where there is no terminal.
LINE_SECONDS = 5.0


class Champion(NamedTuple):
    """The model to score with, and the folder its model.json is in."""

    name: str
    version: str
    runtime: str
    model_dir: Path


def run(context: Context) -> Result:
    """Find the bundle, score, and say what was done. No record: a job is no stage of a release."""
    pattern, output = _asked(context, "INPUT"), context.root / _asked(context, "OUTPUT")
    # Quotes as in CSV, for a name with a comma.
    keep = next(csv.reader([context.call.get("KEEP", "")], skipinitialspace=True), [])
    probabilities = context.call.get("PROBABILITIES", "no") not in ("0", "no", "false")
    champion = _champion_apart(context)
    if champion.runtime != "sklearn":
        # Every core predicts already; threads of numpy's own would only be in the way.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"

    from scoring.batch import score_files
    from scoring.batch_errors import BatchError
    from scoring.batch_input import find_files
    from scoring.batch_output import rejects_path
    from scoring.batch_rows import Job

    try:
        files = find_files(pattern, context.root)
        job = Job(champion.model_dir, files, output, keep, probabilities)
        many = f"{len(files)} files" if len(files) > 1 else str(files[0])
        console.step(f"scoring {many} with {champion.name} version {champion.version}")
        with _progress() as progress:
            summary = score_files(job, progress)
    except BatchError as error:
        kind = UsageError if error.exit_code == 2 else SlipwayError
        raise kind(error.message, error.mend) from error
    return Result(_message(summary, output, rejects_path(output)))


def _asked(context: Context, name: str) -> str:
    if value := context.call.get(name):
        return value
    raise UsageError(
        f"{name} is not given", "make batch-score INPUT=rows.parquet OUTPUT=scores.parquet"
    )


def _champion_apart(context: Context) -> Champion:
    """The champion, or MODEL_VERSION, packaged if it is not yet.

    MLflow, and what packaging takes, need more memory than scoring may have. So a process of its own
    looks, and takes that memory with it.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_tell_champion, args=(context, sender))
    process.start()
    sender.close()
    try:
        answer: Champion | SlipwayError = receiver.recv()
    except EOFError:
        raise SlipwayError(
            "the search for the champion was ended from outside", "run the same verb again"
        ) from None
    finally:
        process.terminate()
        process.join()
    if isinstance(answer, SlipwayError):
        raise answer
    return answer


def _tell_champion(context: Context, sender: Connection) -> None:
    """Send the champion, or why there is none; the parent ends us when it is interrupted itself."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer: Champion | SlipwayError
    try:
        answer = _champion(context)
    except SlipwayError as known:
        answer = known
    except Exception as error:
        if os.environ.get("VERBOSE"):
            traceback.print_exception(error)
        answer = SlipwayError(
            f"the champion cannot be had: {type(error).__name__}: {error}",
            "`make image` packages it; VERBOSE=1 shows the traceback",
        )
    sender.send(answer)


def _champion(context: Context) -> Champion:
    from scripts.image import packaged
    from scripts.packaging.bundle import Bundles
    from scripts.platforms import connect

    bundles = Bundles(context.root)
    with bundles.locked():
        bundle = packaged(context, connect(context.root, context.settings), bundles, anew=False)
    model = bundle.model
    return Champion(model["name"], str(model["version"]), model["runtime"], bundle.path / "model")


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, else a line every few seconds."""
    if not sys.stdout.isatty():
        yield _print_progress()
        return
    from rich import progress as rich

    columns = (
        rich.TextColumn(" "),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TextColumn("{task.description}"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.share, description=_counts(progress))

        yield show


def _print_progress() -> Callable[[Progress], None]:
    last = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            console.step(f"{progress.share:4.0%}  {_counts(progress)}")

    return show


def _counts(progress: Progress | Summary) -> str:
    rejects = f", {progress.rejected:,} rejects" if progress.rejected else ""
    return f"{progress.written:,} rows{rejects}"


def _message(summary: Summary, output: Path, rejects: Path) -> str:
    rejected = f" ({rejects.name} says why)" if summary.rejected else ""
    earlier = f", {summary.resumed:,} rows of it by an earlier call" if summary.resumed else ""
    return (
        f"{_counts(summary)}{rejected} in {output}{earlier}: {seconds(summary.seconds)},"
        f" {summary.rows_per_second:,.0f} rows/s, peak memory {size(summary.peak_bytes)}"
    )


def main() -> int:
    return run_verb("batch-score", run, outcome=False)


if __name__ == "__main__":
    sys.exit(main())
