"""`make load`: put simulated users on the deployed service and hold it to its objectives."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts import console
from scripts.errors import Refused, SlipwayError
from scripts.platforms import connect
from scripts.platforms.base import Endpoint
from scripts.proof import prove
from scripts.records import write_atomic
from scripts.served import served_model
from scripts.settings import Settings, without_secrets
from scripts.verb import Context, Result, run_verb

#: Rows in the batch that stands beside requests of one row; one request in ten is a batch.
BATCH = 10


def requests_from(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The requests the users send: each row of the sample alone, and a batch of them."""
    rows, results = sample["request"]["data"], sample["result"]
    single = [
        {"name": "1 row", "weight": 9, "data": [row], "result": [result]}
        for row, result in zip(rows, results, strict=True)
    ]
    turns = [turn % len(rows) for turn in range(BATCH)]
    batch = {
        "name": f"{BATCH} rows",
        "weight": len(rows),
        "data": [rows[turn] for turn in turns],
        "result": [results[turn] for turn in turns],
    }
    return [*single, batch]


def listen(plan: Mapping[str, Any], log: Path) -> Iterator[dict[str, Any]]:
    """Run locust in a process of its own and give its lines as they come.

    SlipwayError if it ends without its figures; whatever happens, it is gone afterwards.
    """
    with (
        log.open("w") as errors,
        tempfile.TemporaryFile("w+") as given,
    ):
        json.dump(plan, given)
        given.seek(0)
        with subprocess.Popen(
            [sys.executable, "-m", "scripts.swarm"],
            cwd=Path(__file__).resolve().parents[1],
            env=without_secrets(),
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process:
            try:
                for line in process.stdout or ():
                    yield json.loads(line)
                code = process.wait()
            finally:
                process.kill()
    if code:
        last = log.read_text("utf-8").strip().splitlines()[-1:] or [f"exit code {code}"]
        raise SlipwayError(f"locust ended early: {last[0]}", f"its output is in {log}")


def run_users(
    endpoint: Endpoint, sample: Mapping[str, Any], settings: Settings, folder: Path
) -> dict[str, Any]:
    """Let `LOAD_USERS` loose for `LOAD_DURATION` seconds, telling how it goes; returns the figures."""
    plan = {
        "url": endpoint.url,
        "headers": dict(endpoint.headers),
        "certificate": endpoint.certificate,
        "users": settings.LOAD_USERS,
        "seconds": settings.LOAD_DURATION,
        "tolerance": sample["tolerance"],
        "html": str(folder / "report.html"),
        "requests": requests_from(sample),
    }
    console.step(f"{settings.LOAD_USERS} users for {settings.LOAD_DURATION} s on {endpoint.url}")
    every = math.ceil(settings.LOAD_DURATION / 10)
    figures: dict[str, Any] = {}
    for number, line in enumerate(listen(plan, folder / "locust.log"), start=1):
        if line.get("done"):
            figures = line
        elif number % every == 0:
            console.step(
                f"{line['at']:4.0f} s  {line['requests_per_second']:7.0f} requests/s"
                f"  p95 {line['p95_ms']:g} ms  {line['failures']} failed"
            )
    if not figures:
        raise SlipwayError("locust ended without its figures", f"see {folder / 'locust.log'}")
    return figures


def refusals(record: Mapping[str, Any]) -> list[str]:
    """What in a load record is over its objective, in words."""
    objectives, found = record["objectives"], []
    if not record["requests"]:
        return ["no request was answered"]
    if record["p95_ms"] > objectives["p95_ms"]:
        found.append(f"p95 is {record['p95_ms']:g} ms, over LOAD_P95_MS={objectives['p95_ms']:g}")
    if record["failures"] > objectives["error_rate"] * record["requests"]:
        found.append(
            f"{record['failures']} of {record['requests']} requests failed"
            f" ({record['error_rate']:.2%}), over LOAD_ERROR_RATE={objectives['error_rate']:g}"
            f" (most often: {record['reasons'][0]['reason']})"
        )
    return found


def run(context: Context) -> Result:
    """Load-test what serves now; Refused, with every figure kept, where it misses an objective."""
    settings = context.settings
    service = connect(context.root, settings).service
    deployment, model = served_model(context.root, service)
    endpoint = service.endpoint()
    prove(endpoint.url, model["sample"], endpoint.headers, endpoint.certificate)
    folder = context.records.folder / "load"
    folder.mkdir(parents=True, exist_ok=True)
    figures = run_users(endpoint, model["sample"], settings, folder)
    stats = folder / "stats.json"
    write_atomic(stats, json.dumps(figures, indent=1).encode())
    requests, failures = figures["requests"], figures["failures"]
    record = {
        "url": endpoint.url,
        "deployment": deployment.number,
        "version": deployment.version,
        "users": settings.LOAD_USERS,
        "duration_seconds_target": settings.LOAD_DURATION,
        **{name: figures[name] for name in ("requests", "failures", "requests_per_second")},
        "error_rate": round(failures / requests, 6) if requests else 1.0,
        **{name: figures[name] for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")},
        "reasons": [
            {"reason": reason, "requests": times}
            for reason, times in sorted(figures["reasons"].items(), key=lambda item: -item[1])
        ],
        "objectives": {"p95_ms": settings.LOAD_P95_MS, "error_rate": settings.LOAD_ERROR_RATE},
        "html": context.relative(folder / "report.html"),
        "stats": context.relative(stats),
    }
    if over := refusals(record):
        raise Refused(
            "; ".join(over),
            f"see {record['html']}; mend the service, or set objectives and LOAD_USERS it should meet",
            figures=record,
        )
    return Result(
        f"{requests} requests, {figures['requests_per_second']:g} a second, p95"
        f" {figures['p95_ms']:g} ms, {failures} failed",
        record,
    )


def main() -> int:
    return run_verb("load", run)


if __name__ == "__main__":
    sys.exit(main())
