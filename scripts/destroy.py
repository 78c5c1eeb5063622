"""`make destroy`: remove from the platform what `make provision` made there."""

from __future__ import annotations

import sys

from scripts.platforms import connect
from scripts.verb import Context, Result, run_verb


def run(context: Context) -> Result:
    """Destroy, once CONFIRM or what is typed is its name; no record is true any more."""
    infrastructure = connect(context.root, context.settings).infrastructure
    said = infrastructure.destroy(context.call.get("CONFIRM"))
    context.records.forget_all()
    return Result(said)


def main() -> int:
    return run_verb("destroy", run)


if __name__ == "__main__":
    sys.exit(main())
