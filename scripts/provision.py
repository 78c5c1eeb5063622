"""`make provision`: make on the platform what is missing there, and change what differs."""

from __future__ import annotations

import sys

from scripts.verb import Context, Result, run_verb


def run(context: Context) -> Result:
    """Provision; the record says where everything is."""
    infrastructure = context.platform.infrastructure
    record = dict(infrastructure.provision())
    return Result(str(record.pop("message")), record)


def main() -> int:
    return run_verb("provision", run)


if __name__ == "__main__":
    sys.exit(main())
