"""`make run-pipeline`: run the published pipeline; `WAIT=0` only names it, for a job that runs it."""

from __future__ import annotations

import sys

from scripts.verb import Context, Result, run_verb


def run(context: Context) -> Result:
    """Run it and wait; *kept* if its candidate was not better than the champion."""
    wait = context.call.get("WAIT", "1").lower() not in ("0", "no", "false")
    params = context.call.get("PARAMS", "")
    record = dict(context.platform.pipelines.run(wait=wait, params=params))
    return Result(record.pop("message"), record, record.pop("outcome"))


def main() -> int:
    return run_verb("run-pipeline", run)


if __name__ == "__main__":
    sys.exit(main())
