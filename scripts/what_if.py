"""`make what-if`: what `make provision` would change; changes nothing itself."""

from __future__ import annotations

import sys

from scripts.verb import Context, Result, run_verb


def run(context: Context) -> Result:
    """Print the changes; that there are some is no failure."""
    *lines, last = context.platform.infrastructure.what_if().splitlines()
    if lines:
        print("\n".join(lines), flush=True)
    return Result(last)


def main() -> int:
    return run_verb("what-if", run)


if __name__ == "__main__":
    sys.exit(main())
