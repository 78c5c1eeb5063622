"""`make doctor`: everything a run needs, one line each: ok, or the problem and its mend."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from scripts import console
from scripts.checks import engine, machine, release
from scripts.checks.finding import Check, Finding, problem
from scripts.errors import SlipwayError, UsageError
from scripts.platforms import connect, open_records
from scripts.settings import Settings, load_settings, read_env_file, resolve_settings
from scripts.verb import clone_root, now

#: What is looked at on every platform; each adds its own.
CHECKS: Sequence[Check] = (
    machine.python,
    machine.tools,
    machine.disk,
    machine.memory,
    machine.writable,
    engine.docker,
    release.certificates,
    release.data_file,
    release.model_room,
)


def what_is_valid(root: Path) -> Settings:
    """The settings as far as they can be used, so that one wrong value hides nothing else."""
    values: dict[str, str] = {}
    for file in ("model/defaults.env", ".env"):
        try:
            found = read_env_file(root / file)
        except UsageError:
            continue
        values |= {name: value for name, value in found.items() if value}
    values |= {name: value for name, value in os.environ.items() if value}
    values = {name: value for name, value in values.items() if name in Settings.model_fields}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        wrong = {str(detail["loc"][0]) for detail in error.errors()}
        return Settings.model_validate({n: v for n, v in values.items() if n not in wrong})


def check_settings(root: Path) -> Iterator[Finding]:
    """Every setting's value, and names in .env that are none."""
    try:
        load_settings(root)
    except UsageError as error:
        for line in error.message.split("; "):
            yield problem("settings", line, error.mend)
    else:
        values, origins = resolve_settings(root, os.environ)
        own = sorted(name for name in values if origins[name] != "model/defaults.env")
        yield Finding("ok", "settings", f"valid; set here: {', '.join(own) or 'none'}")


def findings(root: Path) -> Iterator[Finding]:
    """Every check in turn; one that breaks is itself a problem and stops no other."""
    yield from check_settings(root)
    settings = what_is_valid(root)
    for check in (*CHECKS, *connect(root, settings).checks):
        what = check.__name__.replace("_", " ")
        try:
            yield from check(root, settings)
        except SlipwayError as error:
            yield problem(what, error.message, error.mend)
        except Exception as error:  # a broken machine breaks in ways nobody lists
            yield problem(what, f"{type(error).__name__}: {error}", "mend what it names")


def main() -> int:
    """Print every finding; 2 if one is a problem, and then it stands in outcome.json too."""
    root = clone_root()
    started, began = now(), time.monotonic()
    console.heading("doctor")
    problems = []
    try:
        for finding in findings(root):
            print(finding.line(), flush=True)
            if finding.level == "problem":
                problems.append(finding)
    except KeyboardInterrupt:
        console.error("interrupted")
        return 130
    count = len(problems)
    message = f"{count} problem{'s' if count != 1 else ''} found" if count else "all is well"
    outcome = {
        "verb": "doctor",
        "outcome": "failed" if problems else "done",
        "code": 2 if problems else 0,
        "message": "; ".join([message, *(item.text for item in problems)]),
        "mend": "; ".join(dict.fromkeys(item.mend for item in problems)),
        "time": started,
        "duration_seconds": round(time.monotonic() - began, 3),
    }
    try:
        open_records(root, what_is_valid(root)).write_outcome(outcome)
    except (OSError, SlipwayError) as error:
        console.warning(f"outcome.json could not be written: {error}")
    if problems:
        console.error(message)
        return 2
    console.done(message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
