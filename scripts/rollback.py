"""`make rollback`: serve the previous deployment again."""

from __future__ import annotations

import sys

from scripts.deploy import message_of, record_of
from scripts.platforms import connect
from scripts.verb import Context, Result, run_verb


def run(context: Context) -> Result:
    """Roll back; what was tested of the deployment that is left is not true of the one before."""
    deployment = connect(context.root, context.settings).service.rollback()
    context.records.forget("deploy", "smoke", "load")
    return Result(
        f"rolled back: {message_of(deployment)}",
        {**record_of(deployment), "rolled_back": True},
        record_of="deploy",
    )


def main() -> int:
    return run_verb("rollback", run)


if __name__ == "__main__":
    sys.exit(main())
