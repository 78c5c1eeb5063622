"""`make destroy`: remove from the platform what `make provision` made there."""

from __future__ import annotations

import sys

from scripts.verb import Context, Result, run_verb


def run(context: Context) -> Result:
    """Destroy, once CONFIRM or what is typed is its name; from then on no record is true any more."""
    confirmation = context.call.get("CONFIRM")
    destroy = context.platform.infrastructure.destroy
    return Result(destroy(confirmation, begun=context.records.forget_all))


def main() -> int:
    return run_verb("destroy", run)


if __name__ == "__main__":
    sys.exit(main())
