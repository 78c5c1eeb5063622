"""`make ui`: the page that shows runs and models."""

from __future__ import annotations

import sys

from scripts.verb import Context, Result, run_verb


def run(context: Context) -> Result:
    return context.platform.show_runs(context)


def main() -> int:
    return run_verb("ui", run)


if __name__ == "__main__":
    sys.exit(main())
