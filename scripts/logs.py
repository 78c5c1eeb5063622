"""`make logs`: the service's log; on a terminal it goes on until Ctrl-C."""

from __future__ import annotations

import sys

from scripts.platforms import connect
from scripts.verb import Context, Result, run_verb


def run(context: Context) -> Result:
    service = connect(context.root, context.settings).service
    shown = 0
    try:
        for line in service.logs(follow=sys.stdout.isatty()):
            print(line, flush=sys.stdout.isatty())
            shown += 1
    except KeyboardInterrupt:
        print()
    return Result(f"{shown} lines")


def main() -> int:
    return run_verb("logs", run)


if __name__ == "__main__":
    sys.exit(main())
