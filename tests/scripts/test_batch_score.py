"""`make batch-score` as a user calls it: the champion over files, on a workspace of the tests' own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from tests import rooms

if TYPE_CHECKING:
    from tests.scripts.conftest import Workspace


@pytest.fixture
def scoring(workspace: Workspace, root: Path) -> Workspace:
    """A workspace with a registered champion that was never packaged."""
    for name in ("scoring", "make"):
        (workspace.folder / name).symlink_to(root / name)
    shutil.copytree(root / "docker", workspace.folder / "docker", dirs_exist_ok=True)
    register(workspace, PARAMS="alpha=1000")
    return workspace


def register(workspace: Workspace, **environ: str) -> None:
    for verb in ("data", "train", "evaluate", "register"):
        assert workspace.run(verb, **environ) == 0, verb


def served(workspace: Workspace, rows: pd.DataFrame) -> list[float]:
    """What the service would answer for the rows."""
    from scoring.contract import load_contract
    from scoring.runtime import load_runtime
    from scoring.score import Scorer

    (bundle,) = (
        path for path in (workspace.folder / "build" / "bundles").iterdir() if path.name[0] != "."
    )
    contract = load_contract(bundle / "model")
    scorer = Scorer(contract, load_runtime(contract, bundle / "model"), 100_000)
    body = json.dumps({"data": rows[contract.names].to_numpy().tolist()})
    result: list[float] = scorer.score(body.encode())["result"]
    return result


def test_a_champion_that_was_never_packaged_scores_as_the_service_does(
    scoring: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rooms.wood(500, seed=3).assign(tree=lambda frame: frame.index + 7)
    folder = scoring.folder / "trees to score"
    folder.mkdir()
    rows.to_parquet(folder / "in.parquet")
    before = scoring.records

    call = {"INPUT": "trees to score/in.parquet", "OUTPUT": str(folder / "out.parquet")}
    assert scoring.run("batch_score", **call, KEEP="tree") == 0

    scored = pd.read_parquet(folder / "out.parquet")
    assert list(scored) == ["tree", "prediction"]
    assert scored["tree"].tolist() == rows["tree"].tolist()
    np.testing.assert_allclose(scored["prediction"], served(scoring, rows), rtol=1e-12)
    assert sorted(path.name for path in folder.iterdir()) == ["in.parquet", "out.parquet"]
    # No stage of the release, so no record.
    assert scoring.records == before
    said = capsys.readouterr().out
    assert "500 rows in" in said
    assert "rows/s, peak memory" in said


def test_an_older_version_scores_by_its_number(
    scoring: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    register(scoring, PARAMS="alpha=0.1")
    rooms.wood(20).to_csv(scoring.folder / "rows.csv", index=False)
    call = {"INPUT": "rows.csv", "OUTPUT": "out.csv"}
    results = []
    for version in ({}, {"MODEL_VERSION": "2"}, {"MODEL_VERSION": "1"}):
        assert scoring.run("batch_score", **call, **version) == 0
        results.append((scoring.folder / "out.csv").read_text())
    assert results[0] == results[1] != results[2]
    assert scoring.run("batch_score", **call, MODEL_VERSION="9") == 2
    assert "MODEL_VERSION=9: wood has no such version" in capsys.readouterr().err
    assert (scoring.folder / "out.csv").read_text() == results[2]


WRONG_CALLS = [
    ({"OUTPUT": "out.csv"}, "INPUT is not given"),
    ({"INPUT": "data"}, "OUTPUT is not given"),
    ({"INPUT": "nowhere.csv", "OUTPUT": "out.csv"}, "INPUT=nowhere.csv does not exist"),
    ({"INPUT": "data/*.parquet", "OUTPUT": "out.csv"}, "INPUT=data/*.parquet matches no file"),
    ({"INPUT": "Makefile", "OUTPUT": "out.csv"}, "is neither .csv nor .parquet"),
    ({"INPUT": "data", "OUTPUT": "out.txt"}, "ends in neither .csv nor .parquet"),
    ({"INPUT": "data", "OUTPUT": "gone/out.csv"}, "the folder of OUTPUT="),
    ({"INPUT": "data", "OUTPUT": "data/wood.csv"}, "INPUT takes in OUTPUT="),
    ({"INPUT": "data", "OUTPUT": "out.csv", "KEEP": "leaf"}, "has no column leaf"),
    ({"INPUT": "data", "OUTPUT": "out.csv", "PROBABILITIES": "1"}, "this model has none"),
]


def test_a_wrong_call_ends_with_2_and_names_what_is_wrong(
    scoring: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (scoring.folder / "Makefile").write_text("")
    for call, message in WRONG_CALLS:
        assert scoring.run("batch_score", **call) == 2, call
        said = capsys.readouterr().err
        assert message in said
        assert "mend:" in said
        assert "Traceback" not in said
    assert not list(scoring.folder.glob("out*"))
    assert not list(scoring.folder.glob(".*partial"))


def test_nothing_registered_is_said(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workspace.run("batch_score", INPUT="data", OUTPUT="out.csv") == 2
    assert "run `make register` first" in capsys.readouterr().err


def start(workspace: Workspace, root: Path, **call: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.batch_score"],
        cwd=workspace.folder,
        env={**os.environ, **call, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def half_done(process: subprocess.Popen[str], journal: Path) -> None:
    """Wait until some parts are finished, and the job still works."""
    deadline = time.monotonic() + 60
    while not (journal.is_file() and journal.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_interrupted_it_leaves_no_half_output_and_goes_on(scoring: Workspace, root: Path) -> None:
    many = pd.concat([rooms.wood(1000)] * 4000, ignore_index=True)
    many["tree"] = np.arange(len(many))
    many.to_parquet(scoring.folder / "in.parquet")
    output = scoring.folder / "out.parquet"
    call = {"INPUT": "in.parquet", "OUTPUT": "out.parquet", "KEEP": "tree"}
    assert scoring.run("image") == 0

    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = start(scoring, root, **call)
        half_done(process, scoring.folder / ".out.parquet.partial" / "journal")
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == code, said
        assert "Traceback" not in said
        assert not output.exists()

        process = start(scoring, root, **call)
        printed, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "rows of it by an earlier call" in printed
        scored = pd.read_parquet(output)
        assert scored["tree"].tolist() == list(range(len(many)))
        per_tree: Any = scored["prediction"].to_numpy().reshape(4000, 1000)
        assert (per_tree == per_tree[0]).all()
        assert not (scoring.folder / ".out.parquet.partial").exists()
        output.unlink()
