"""Batch scoring against pandas with scikit-learn: the same Parquet file, processes in turn.

    python -m benchmarks.batch [--rows 10000000] [--rounds 3] [--folder build/bench]

Prints JSON: rows per second of every round, their medians, the ratio, peak memory in bytes. Both sides
read ten columns of numbers, predict with StandardScaler and Ridge, and write one column; what they
predict is compared. Times are from opening the input to the finished output, imports left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import plain_environ
from scripts.errors import SlipwayError

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = [f"x{index}" for index in range(10)]

#: Largest relative difference between the two sides' predictions.
TOLERANCE = 1e-9


def generate(path: Path, rows: int) -> None:
    """Write normally distributed float64 columns, in row groups of a million rows."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(20240229)
    schema = pa.schema([(name, pa.float64()) for name in COLUMNS])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 1_000_000):
            count = min(1_000_000, rows - start)
            values = [rng.normal(index, index + 1, count) for index in range(len(COLUMNS))]
            writer.write_table(pa.table(values, schema=schema))


def train(folder: Path) -> None:
    """Leave the estimator as a pickle, and as the bundle of a linear model."""
    import joblib
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(7)
    rows = pd.DataFrame(rng.normal(size=(5_000, len(COLUMNS))), columns=COLUMNS)
    target = rows.to_numpy() @ np.arange(1, len(COLUMNS) + 1) + rng.normal(size=len(rows)) + 40
    scaler, ridge = StandardScaler(), Ridge()
    estimator = make_pipeline(scaler, ridge).fit(rows, target)
    joblib.dump(estimator, folder / "estimator.joblib")
    coefficients = ridge.coef_ / scaler.scale_
    model = {
        "coefficients": coefficients.tolist(),
        "intercept": float(ridge.intercept_ - coefficients @ scaler.mean_),
    }
    content = json.dumps(model).encode()
    contract = {
        "name": "benchmark",
        "version": 1,
        "kind": "regressor",
        "target": "y",
        "columns": [{"name": name, "type": "number"} for name in COLUMNS],
        "runtime": "linear",
        "file": "linear.json",
        "sha256": hashlib.sha256(content).hexdigest(),
        "sample": {"request": {}, "result": []},
    }
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "linear.json").write_bytes(content)
    (folder / "model" / "model.json").write_text(json.dumps(contract))


def score_ours(folder: Path) -> dict[str, Any]:
    """Score with our batch scorer, in this process."""
    from scoring.batch import score_files
    from scoring.batch_rows import Job

    job = Job(folder / "model", [folder / "in.parquet"], folder / "ours.parquet")
    summary = score_files(job)
    return {"seconds": summary.seconds, "rows": summary.written, "peak_bytes": summary.peak_bytes}


def score_with_pandas(folder: Path) -> dict[str, Any]:
    """Score with pandas and scikit-learn, in this process."""
    import joblib
    import pandas as pd
    import sklearn.pipeline  # noqa: F401

    from scoring.batch import peak_bytes

    began = time.monotonic()
    estimator = joblib.load(folder / "estimator.joblib")
    frame = pd.read_parquet(folder / "in.parquet")
    scored = pd.DataFrame({"prediction": estimator.predict(frame)})
    scored.to_parquet(folder / "pandas.parquet")
    seconds = time.monotonic() - began
    return {"seconds": seconds, "rows": len(scored), "peak_bytes": peak_bytes()}


SIDES = {"ours": score_ours, "pandas": score_with_pandas}


def compare(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    """Both sides in turn, each in a process of its own. SlipwayError if they predict differently."""
    import pandas as pd

    generate(folder / "in.parquet", rows)
    train(folder)
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, results in found.items():
            results.append(_in_process(side, folder))
    ours, theirs = (pd.read_parquet(folder / f"{side}.parquet")["prediction"] for side in SIDES)
    difference = float(((ours - theirs).abs() / theirs.abs().clip(lower=1.0)).max())
    if len(ours) != rows or not difference <= TOLERANCE:
        raise SlipwayError(
            f"batch-score and pandas differ by {difference:.2g}, with {len(ours)} rows of {rows}"
        )
    speeds = {
        side: [each["rows"] / each["seconds"] for each in results]
        for side, results in found.items()
    }
    medians = {side: statistics.median(values) for side, values in speeds.items()}
    return {
        "rows": rows,
        "rows_per_second": speeds,
        "median_rows_per_second": medians,
        "ratio": medians["ours"] / medians["pandas"],
        "peak_bytes": {
            side: max(each["peak_bytes"] for each in results) for side, results in found.items()
        },
        "max_difference": difference,
    }


def measure(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    """`compare` in a folder of its own below `folder`, gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="batch-") as own:
        return compare(Path(own), rows, rounds)


def _in_process(side: str, folder: Path) -> dict[str, Any]:
    # As `make batch-score` sets it: every core predicts already.
    own = {"OPENBLAS_NUM_THREADS": "1"} if side == "ours" else {}
    environ = {**plain_environ(), **own, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.batch", "--side", side, "--folder", folder],
        env=environ,
        stdout=subprocess.PIPE,
    )
    if done.returncode:
        raise SlipwayError(
            f"the {side} side of batch scoring ended with code {done.returncode}",
            "see what it said above; pandas needs about 3 GB of memory",
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.side:
        print(json.dumps(SIDES[given.side](given.folder)))
        return 0
    print(json.dumps(measure(given.folder, given.rows, given.rounds), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
