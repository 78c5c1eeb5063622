"""What a person sees while a verb works: plain lines, colour only on a terminal."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def _paint(text: str, code: str, stream: TextIO) -> str:
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{code}m{text}\033[0m"


def heading(verb: str) -> None:
    """Say which verb begins."""
    print(_paint(f"▸ {verb}", "1;36", sys.stdout), flush=True)


def step(text: str) -> None:
    """Say what is being done now."""
    print(f"  {text}", flush=True)


def done(text: str, *, kept: bool = False) -> None:
    """Say how the verb ended."""
    mark = _paint("=", "1;33", sys.stdout) if kept else _paint("✓", "1;32", sys.stdout)
    print(f"  {mark} {text}", flush=True)


def warning(text: str) -> None:
    """Say what did not stop the work but should be looked at."""
    print(f"{_paint('warning:', '1;33', sys.stderr)} {text}", file=sys.stderr, flush=True)


def error(text: str) -> None:
    """Say what stopped the work."""
    print(f"{_paint('error:', '1;31', sys.stderr)} {text}", file=sys.stderr, flush=True)
