"""Run one verb: settings in, body, record out, and the exit code of the design.

A verb's module holds `run(context) -> Result` and a `main()` that passes it here, to what all verbs
share.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

from scripts import console
from scripts.contract import place_in_model
from scripts.errors import Interrupted, SlipwayError
from scripts.platforms import connect, open_records
from scripts.platforms.base import Platform
from scripts.records import PIPELINE, PREPARING, STAGES, Records
from scripts.settings import Settings, load_settings


@dataclass(frozen=True)
class Result:
    """What a verb did: `outcome` is `done` or `kept`; `record` None leaves no record."""

    message: str
    record: Mapping[str, Any] | None = None
    outcome: str = "done"
    #: The verb whose record this is, where it is another's: `rollback` replaces `deploy`'s.
    record_of: str | None = None


@dataclass(frozen=True)
class Context:
    """What a verb's body works with."""

    root: Path
    settings: Settings
    records: Records
    #: One-call variables (PARAMS, FORCE, MODEL_VERSION, CONFIRM ...), unset ones left out.
    call: Mapping[str, str] = field(default_factory=dict)
    #: The platform, where it is not simply the one that PLATFORM names: within a run of its own.
    given: Platform | None = None

    @cached_property
    def platform(self) -> Platform:
        """Where this call's effects go."""
        return self.given or connect(self.root, self.settings)

    def relative(self, path: Path) -> str:
        """`path` as records hold it: relative to the clone, so that a record can be read anywhere."""
        return path.relative_to(self.root).as_posix()


ONE_CALL = (
    *("PARAMS", "FORCE", "MODEL_VERSION", "CONFIRM", "VERBOSE", "WAIT"),
    *("BENCH_PEERS", "BENCH_SECONDS", "BENCH_ROUNDS"),
    *("INPUT", "OUTPUT", "KEEP", "PROBABILITIES"),
)


def clone_root() -> Path:
    """The clone this process works on."""
    return Path(os.environ.get("SLIPWAY_ROOT") or Path(__file__).resolve().parents[1])


class _Terminated(KeyboardInterrupt):
    """SIGTERM arrived. No `Exception`, so that nothing on the way takes it for a failure."""


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def now() -> str:
    """The present in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_verb(verb: str, body: Callable[[Context], Result], *, outcome: bool = True) -> int:
    """Run `body`, keep what it gives in the verb's record, and return the exit code.

    Without `outcome`, `outcome.json` stays as the verb before left it.
    0 done or kept; 1 failed; 2 usage or configuration; 3 a gate refused; 130 and 143 interrupted.
    """
    started, began = now(), time.monotonic()
    root = clone_root()
    # Where the outcome goes while the settings that say so cannot be read.
    records = Records(root / "build" / "local")

    def envelope(**fields: Any) -> dict[str, Any]:
        spent = round(time.monotonic() - began, 3)
        return {"verb": verb, **fields, "time": started, "duration_seconds": spent}

    try:
        with _sigterm_raises():
            call = {name: value for name in ONE_CALL if (value := os.environ.get(name))}
            settings = load_settings(root)
            records = open_records(root, settings)
            console.heading(verb)
            result = body(Context(root, settings, records, call))
            if result.record is not None:
                records.write(
                    result.record_of or verb,
                    envelope(outcome=result.outcome, message=result.message, **result.record),
                )
            # What leaves no record says only that its own failure is over.
            if outcome and (result.record is not None or records.last_failed(verb)):
                records.write_outcome(
                    envelope(outcome=result.outcome, code=0, message=result.message)
                )
            console.done(result.message, kept=result.outcome == "kept")
            return 0
    except KeyboardInterrupt as stop:
        error: SlipwayError = Interrupted(
            signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT
        )
    except SlipwayError as known:
        error = known
    except BrokenPipeError:
        # The reader of our output went away (`make status | head`): no failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as unexpected:
        error = _explain(verb, unexpected)
        error.__cause__ = unexpected
    if os.environ.get("VERBOSE"):
        traceback.print_exception(error)
    console.error(str(error))
    failed = {
        "outcome": "failed",
        "code": error.exit_code,
        "message": error.message,
        "mend": error.mend,
    }
    try:
        if verb in (*PREPARING, *PIPELINE, *STAGES):
            records.write_failed(verb, envelope(**failed, **error.figures))
        if outcome:
            records.write_outcome(envelope(**failed))
    except OSError as full:
        console.error(f"the failure could not be recorded: {full}")
    _abandon_threads(verb, error.exit_code)
    return error.exit_code


def _abandon_threads(verb: str, code: int) -> None:
    """End this process, if it is the verb's own and a library's threads would keep it for minutes.

    They still try what has failed, and Python waits for them.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    ours = spec is not None and spec.name == f"scripts.{verb.replace('-', '_')}"
    others = [each for each in threading.enumerate() if each is not threading.main_thread()]
    if ours and not all(each.daemon for each in others):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _explain(verb: str, error: Exception) -> SlipwayError:
    """A failure nobody foresaw, in one line; the traceback is there for who asks."""
    if isinstance(error, OSError) and error.filename:
        return SlipwayError(
            f"{verb}: {error.filename}: {error.strerror}", "check the path, its rights and the disk"
        )
    text = str(error).strip().splitlines()
    return SlipwayError(
        f"{place_in_model(error) or verb}: {type(error).__name__}: {text[0] if text else 'no message'}",
        f"run `make {verb} VERBOSE=1` for the traceback",
    )
