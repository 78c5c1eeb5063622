"""One line of `make doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scripts.settings import Settings


@dataclass(frozen=True)
class Finding:
    """What a check found; a `note` is no fault, a `warning` may become one."""

    level: Literal["ok", "note", "warning", "problem"]
    what: str
    text: str
    mend: str = ""

    def line(self) -> str:
        text = " ".join(f"{self.what}: {self.text}".split())
        return f"{self.level:<8} {text}" + (f" — mend: {self.mend}" if self.mend else "")


#: Looks at one thing of a clone; its name, with blanks, is what it is called where it breaks.
Check = Callable[[Path, Settings], Iterator[Finding]]


def problem(what: str, text: str, mend: str) -> Finding:
    """Something that stops a run."""
    return Finding("problem", what, text, mend)


def ok(what: str, text: str) -> Finding:
    """Something that is as it should be."""
    return Finding("ok", what, text)
