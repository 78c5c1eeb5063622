"""What can go wrong, and the exit code each failure ends with.

SlipwayError            1  the work failed
├── UsageError          2  a setting, file or call is wrong: names it, its value and what it should be
├── Refused             3  a gate refused: the figures are kept in the record
└── Interrupted         130 or 143  Ctrl-C or SIGTERM; nothing is half-written
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any


class SlipwayError(Exception):
    """The work failed.

    `message` names the thing that is wrong, `mend` what to do next; `figures` are kept in
    `<verb>.failed.json`.
    """

    exit_code = 1

    def __init__(
        self, message: str, mend: str = "", *, figures: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
        self.figures = dict(figures or {})

    def __str__(self) -> str:
        return f"{self.message}\n  mend: {self.mend}" if self.mend else self.message


class UsageError(SlipwayError):
    """A setting, a file or a call is wrong; nothing was changed."""

    exit_code = 2


class Refused(SlipwayError):
    """A gate refused: load over its objective, a wrong smoke answer, shifted data."""

    exit_code = 3


class Interrupted(SlipwayError):
    """The caller stopped the verb; `exit_code` is 128 plus the signal, as shells have it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}", "run the same verb again")
        self.exit_code = 128 + signum
