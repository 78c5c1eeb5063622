"""`make audit`: known vulnerabilities of what docker/locks pin, asked of PyPI, else of OSV.

What docker/locks/accepted.toml accepts with a reason counts as a finding again from the day it says.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scripts import console
from scripts.errors import Refused, SlipwayError, UsageError
from scripts.verb import Context, Result, run_verb

if TYPE_CHECKING:
    from rich.table import Table

LOCKS = Path("docker/locks")
ACCEPTED = LOCKS / "accepted.toml"

#: The databases in the order they are asked, as pip-audit names them and as people do.
SERVICES = {"pypi": "PyPI", "osv": "OSV"}

#: Seconds for one package, and for a lock.
TIMEOUT, LIMIT = 20, 900

#: What went wrong on the network, in the traceback that pip-audit ends with.
_CAUSE = re.compile(r"\[(?:Errno -?\d+|SSL: \w+)\] ([^'\"()\n]+)|HTTPError: (\d{3} .*?) for url")


class Acceptance(BaseModel):
    """A finding that is accepted until a day, by its id or one of its other names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(min_length=1)]
    package: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]
    until: date


class AcceptedFile(BaseModel):
    """What accepted.toml may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accepted: tuple[Acceptance, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A known vulnerability of a package in a lock."""

    lock: str
    package: str
    version: str
    names: tuple[str, ...]  # its id first
    fixed_in: tuple[str, ...]

    def is_accepted(self, by: Acceptance, today: date) -> bool:
        return by.package == self.package and by.id in self.names and today < by.until


@dataclass(frozen=True)
class Answer:
    """What a database said of the locks; of `unknown` packages it knows nothing."""

    database: str
    findings: Sequence[Finding]
    unknown: Sequence[str]


class _Unreachable(Exception):
    """A database did not answer; the message says why, in a few words."""


def read_accepted(path: Path) -> tuple[Acceptance, ...]:
    """The accepted findings; UsageError names what is wrong in the file."""
    try:
        found = tomllib.loads(path.read_text("utf-8"))
        return AcceptedFile.model_validate(found).accepted
    except FileNotFoundError:
        return ()
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(str(part) for part in detail["loc"])
        raise UsageError(
            f"{ACCEPTED}: {where}: {detail['msg']}",
            "write [[accepted]], and below it id, package, reason and until",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{ACCEPTED} is not valid TOML: {error}", "correct the line") from None


def ask(locks: Sequence[Path]) -> Answer:
    """What the first database that answers says of the locks; SlipwayError if none does."""
    reasons = []
    # The shortest first: whether a database answers is seen at its first package.
    ordered = sorted(locks, key=lambda path: path.stat().st_size)
    for service, name in SERVICES.items():
        console.step(f"asking {name}")
        try:
            # A cache for this call alone: yesterday's answer is not wanted.
            with tempfile.TemporaryDirectory() as cache:
                said = {lock.stem: _ask(service, lock, cache) for lock in ordered}
        except _Unreachable as error:
            reasons.append(f"{name}: {error}")
            continue
        unknown = {each["name"] for lines in said.values() for each in lines if _unknown(each)}
        findings = [each for lock in sorted(said) for each in _findings(lock, said[lock])]
        return Answer(name, findings, sorted(unknown))
    raise SlipwayError(
        f"no database of vulnerabilities can be reached ({'; '.join(reasons)})",
        "allow HTTPS to one of them (https_proxy, EXTRA_CA), or run it where they can be reached",
    )


def _ask(service: str, lock: Path, cache: str) -> list[dict[str, Any]]:
    """pip-audit's lines on the packages of a lock; nothing is installed for it."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service]
    command += ["--requirement", str(lock), "--require-hashes", "--disable-pip"]
    command += ["--format", "json", "--aliases", "on", "--desc", "off", "--progress-spinner", "off"]
    command += ["--timeout", str(TIMEOUT), "--cache-dir", cache]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        raise _Unreachable(f"no answer within {LIMIT} s") from None
    try:
        lines: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        if last.startswith("ERROR:") and "your network" not in last:
            raise SlipwayError(
                f"{LOCKS / lock.name} cannot be audited: {last.rpartition('_cli:')[2]}",
                "`make lock` makes it again",
            ) from None
        causes = ["".join(groups).strip() for groups in _CAUSE.findall(done.stderr)]
        raise _Unreachable(causes[-1] if causes else last[:200]) from None
    if lines and all(_unknown(each) for each in lines):
        # pip-audit takes a mirror that has the packages alone for a database without findings.
        raise _Unreachable(f"it knows no package of {lock.name}, as a mirror without the JSON API")
    return lines


def _unknown(line: Mapping[str, Any]) -> bool:
    return "skip_reason" in line


def _findings(lock: str, lines: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    for line in sorted(lines, key=lambda each: str(each["name"])):
        for found in line.get("vulns", []):
            names = (found["id"], *sorted(found["aliases"]))
            yield Finding(lock, line["name"], line["version"], names, tuple(found["fix_versions"]))


def table(findings: Sequence[Finding]) -> Table:
    """The findings, a section for each lock."""
    from rich import box
    from rich.table import Table

    shown = Table("lock", "package", "version", "finding", "fixed in", box=box.ROUNDED)
    for before, each in zip([None, *findings], findings, strict=False):
        if before is not None and before.lock != each.lock:
            shown.add_section()
        names = " ".join(name for name in each.names if not name.startswith("GHSA-"))
        fixed = each.fixed_in[0] if each.fixed_in else "-"
        shown.add_row(each.lock, each.package, each.version, names or each.names[0], fixed)
    return shown


def run(context: Context) -> Result:
    """Ask, print what was found, and refuse if any of it is not accepted."""
    from rich.console import Console

    accepted = read_accepted(context.root / ACCEPTED)
    locks = list((context.root / LOCKS).glob("*.txt"))
    answer = ask(locks)
    today = datetime.now(UTC).date()
    left = []
    for finding in answer.findings:
        by = next((each for each in accepted if finding.is_accepted(each, today)), None)
        if by is None:
            left.append(finding)
        else:
            console.step(
                f"{finding.lock}: {finding.package} {by.id} accepted until {by.until}: {by.reason}"
            )
    for each in accepted:
        if not any(each.id in finding.names for finding in answer.findings):
            console.warning(f"{ACCEPTED} accepts {each.id}, which is not found any more")
    if answer.unknown:
        console.warning(f"{answer.database} does not know {', '.join(answer.unknown)}")
    if left:
        Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(table(left))
        names = sorted({finding.package for finding in left})
        count = len({finding.names for finding in left})
        raise Refused(
            f"{count} known vulnerabilit{'y' if count == 1 else 'ies'} in {', '.join(names)}",
            f"`make lock UPGRADE=1`, or accept them with a reason in {ACCEPTED}",
        )
    return Result(f"no known vulnerability in {len(locks)} locks, by {answer.database}")


def main() -> int:
    return run_verb("audit", run, outcome=False)


if __name__ == "__main__":
    sys.exit(main())
