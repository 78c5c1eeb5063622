"""`make down`: stop the service; its history, images and bundles stay."""

from __future__ import annotations

import sys

from scripts.platforms import connect
from scripts.platforms.base import start_again
from scripts.verb import Context, Result, run_verb


def run(context: Context) -> Result:
    service = connect(context.root, context.settings).service
    stopped = service.stop()
    context.records.forget("deploy", "smoke", "load")
    if not stopped:
        return Result("nothing was serving")
    return Result(f"the service is stopped; `{start_again(service.history())}` starts it again")


def main() -> int:
    return run_verb("down", run)


if __name__ == "__main__":
    sys.exit(main())
