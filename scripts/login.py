"""`make login`: sign in to the platform, unless that was done."""

from __future__ import annotations

import sys

from scripts.verb import Context, Result, run_verb


def run(context: Context) -> Result:
    """Sign in; says as whom and where."""
    return Result(context.platform.infrastructure.login())


def main() -> int:
    return run_verb("login", run)


if __name__ == "__main__":
    sys.exit(main())
