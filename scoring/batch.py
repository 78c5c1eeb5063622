"""Batch scoring: files of any size in, predictions in the same order out, with bounded memory.

One thread reads bounded slices, all cores check and predict them, and one thread writes them in order.
It runs in the toolbox and is no part of the scoring image.
"""

from __future__ import annotations

import errno
import hashlib
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from scoring.batch_errors import BatchError
from scoring.batch_input import SUFFIXES, Input, open_input
from scoring.batch_model import PREDICTION, Model, Part, probability_columns
from scoring.batch_output import Output, making, rejects_path
from scoring.batch_rows import Job, Wanted
from scoring.contract import FILE_NAME, Contract, load_contract
from scoring.errors import StartError
from scoring.settings import available_cpus

#: Decoded input in flight, in bytes, however many cores there are.
_IN_FLIGHT = 48 << 20
_MOST_WORKERS = 16


class Progress(NamedTuple):
    """How far a job is: `share` of the input from 0 to 1, rows written and rejected so far."""

    share: float
    written: int
    rejected: int


class Summary(NamedTuple):
    """What a job did. `resumed` rows had been done by earlier calls; `seconds` are this call's.

    `peak_bytes` is the most memory this process was resident with.
    """

    written: int
    rejected: int
    resumed: int
    seconds: float
    peak_bytes: int

    @property
    def rows_per_second(self) -> float:
        """Of the rows that this call did."""
        return (self.written + self.rejected - self.resumed) / max(self.seconds, 1e-9)


def score_files(job: Job, progress: Callable[[Progress], None] = lambda _: None) -> Summary:
    """Do the job, or finish one that was interrupted. Raises BatchError."""
    began = time.monotonic()
    with _disk(job.output):
        try:
            contract = load_contract(job.model_dir)
            model = Model(contract, job)
        except StartError as error:
            raise BatchError(str(error), "package the model again", error.exit_code) from error
        _check_output(job, contract)
        workers = min(available_cpus(), _MOST_WORKERS)
        wanted = Wanted(contract.columns, job.keep)
        source = open_input(job.files, wanted, _IN_FLIGHT // (workers + 1))
        schema = model.schema(source)
        with making(job.output, _origin(job), schema) as output:
            resumed = output.written + output.rejected
            _run(source, model, output, workers, progress)
            if output.written + output.rejected == 0:
                raise BatchError("INPUT has no rows", "name files with rows in them")
            output.publish()
        seconds = time.monotonic() - began
        return Summary(output.written, output.rejected, resumed, seconds, peak_bytes())


def peak_bytes() -> int:
    """The most memory this process was resident with."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _check_output(job: Job, contract: Contract) -> None:
    output = job.output
    if output.suffix.lower() not in SUFFIXES:
        raise BatchError(f"OUTPUT={output} ends in neither .csv nor .parquet", "its end says which")
    if not output.parent.is_dir():
        raise BatchError(f"the folder of OUTPUT={output} does not exist", "make it first")
    if output.is_dir():
        raise BatchError(f"OUTPUT={output} is a folder", "name a file in it")
    if any(
        path.resolve() in (output.resolve(), rejects_path(output).resolve()) for path in job.files
    ):
        raise BatchError(
            f"INPUT takes in OUTPUT={output} or its rejects", "write to another file or folder"
        )
    if job.probabilities and not contract.probabilities:
        raise BatchError("PROBABILITIES: this model has none", "leave it out")
    twice = [name for name in job.keep if job.keep.count(name) > 1]
    added = [PREDICTION, *probability_columns(contract)] if job.probabilities else [PREDICTION]
    for name in [*twice, *(name for name in job.keep if name in added)]:
        raise BatchError(
            f"KEEP={','.join(job.keep)}: the output would have two columns {name}",
            "leave it out, or rename it in the input",
        )


def _origin(job: Job) -> dict[str, Any]:
    """Everything the output is made from; whatever differs, the job starts over."""
    return {
        "format": 1,
        "model": hashlib.sha256((job.model_dir / FILE_NAME).read_bytes()).hexdigest(),
        "input": [
            [str(path), status.st_size, status.st_mtime_ns]
            for path in job.files
            for status in [path.stat()]
        ],
        "output": job.output.name,
        "keep": list(job.keep),
        "probabilities": job.probabilities,
    }


def _run(
    source: Input,
    model: Model,
    output: Output,
    workers: int,
    progress: Callable[[Progress], None],
) -> None:
    """Read here, predict on `workers` threads, write on one more, all at the same time."""

    def write(part: Part) -> None:
        output.add(part.table, part.encoded, part.rejects, part.rejected, part.after)

    def shown() -> None:
        share = source.done(output.position) / max(source.total, 1)
        progress(Progress(share, output.written, output.rejected))

    writing: Future[None] | None = None
    pending: deque[Future[Part]] = deque()
    pool, writer = ThreadPoolExecutor(workers), ThreadPoolExecutor(1)
    try:
        shown()
        units = source.units(output.position)
        unit = next(units, None)
        while unit is not None or pending:
            if unit is not None:
                pending.append(pool.submit(model.part, source, unit, output.encode))
                unit = next(units, None)
                if len(pending) <= workers and unit is not None:
                    continue
            part = pending.popleft().result()
            if writing is not None:
                writing.result()
                shown()
            writing = writer.submit(write, part)
            del part
        if writing is not None:
            writing.result()
        shown()
    finally:
        pool.shutdown(cancel_futures=True)
        writer.shutdown()


@contextmanager
def _disk(output: Path) -> Iterator[None]:
    """Say plainly what the disk or the folder of the output refuses."""
    try:
        yield
    except BrokenPipeError:  # the reader of the progress went away
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BatchError(
                f"no space is left on the disk of {output}",
                "free some and run the same again: it goes on at the last finished part",
                exit_code=1,
            ) from error
        raise BatchError(
            f"{error.filename or output}: {error.strerror or error}",
            "check the folder of OUTPUT and its rights",
        ) from error
