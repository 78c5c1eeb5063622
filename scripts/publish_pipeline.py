"""`make publish-pipeline`: train, evaluate and register as a pipeline of the platform's own."""

from __future__ import annotations

import sys

from scripts.verb import Context, Result, run_verb


def run(context: Context) -> Result:
    """Publish under TRAINING_PIPELINE_NAME, version BUILD_BUILDID."""
    record = context.platform.pipelines.publish()
    return Result(
        f"pipeline {record['pipeline_name']} {record['pipeline_version']}: {record['pipeline_id']}",
        record,
    )


def main() -> int:
    return run_verb("publish-pipeline", run)


if __name__ == "__main__":
    sys.exit(main())
