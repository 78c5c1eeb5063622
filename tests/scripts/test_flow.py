"""data, train, evaluate and register through real MLflow: the gate, the registry, the records."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import rooms

if TYPE_CHECKING:
    from tests.scripts.conftest import Workspace

TO_REGISTER = ("data", "train", "evaluate", "register")


def flow(workspace: Workspace, **environ: str) -> None:
    for verb in TO_REGISTER:
        assert workspace.run(verb, **environ) == 0, verb


def versions(workspace: Workspace, name: str = "wood") -> list[Any]:
    from scripts.platforms.local.tracking import MlflowTracking

    return list(MlflowTracking(workspace.folder).versions(name))


def test_first_model_is_registered_with_its_lineage(workspace: Workspace) -> None:
    flow(workspace, BUILD_BUILDID="77", BUILD_URI="https://ci.example/77")
    train: Any = workspace.record("train")
    evaluate: Any = workspace.record("evaluate")
    assert (evaluate["decision"], evaluate["champion"]) == ("first", None)
    assert evaluate["candidate"]["value"] < evaluate["baseline"]
    [version] = versions(workspace)
    assert (version.version, version.run_id) == (1, train["run_id"])
    assert version.tags["BuildId"] == "77"
    assert version.tags["BuildUri"] == "https://ci.example/77"
    assert version.tags["data_sha256"] == workspace.record("data")["sha256"]
    assert version.tags["experiment_name"] == "wood"
    for plot in train["plots"]:
        assert (workspace.folder / plot).read_bytes().startswith(b"\x89PNG")


def test_the_run_in_mlflow_holds_what_the_record_says(workspace: Workspace) -> None:
    assert workspace.run("data") == 0
    assert workspace.run("train", PARAMS="alpha=0.25") == 0
    from mlflow import MlflowClient

    train: Any = workspace.record("train")
    store = workspace.folder / "build" / "mlflow" / "mlflow.db"
    client = MlflowClient(tracking_uri=f"sqlite:///{store}")
    run = client.get_run(train["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"alpha": "0.25"}
    assert run.data.metrics["holdout_mae"] == pytest.approx(train["metrics"]["holdout"]["mae"])
    assert run.data.tags["lock_sha256"] == train["lock_sha256"]
    artifacts = {item.path for item in client.list_artifacts(train["run_id"])}
    assert artifacts == {"model", "plots"}


def test_a_worse_candidate_is_kept_out_and_a_better_one_promoted(workspace: Workspace) -> None:
    flow(workspace, PARAMS="alpha=1000")
    for verb in ("train", "evaluate", "register"):
        assert workspace.run(verb, PARAMS="alpha=100000") == 0
    kept: Any = workspace.record("evaluate")
    assert (kept["outcome"], kept["decision"]) == ("kept", "kept")
    assert kept["margin"] < 0
    registered: Any = workspace.record("register")
    assert (registered["outcome"], registered["version"]) == ("kept", 1)
    assert len(versions(workspace)) == 1
    for verb in ("train", "evaluate", "register"):
        assert workspace.run(verb, PARAMS="alpha=0.1") == 0
    promoted: Any = workspace.record("evaluate")
    assert promoted["decision"] == "promoted"
    assert promoted["margin"] == pytest.approx(
        promoted["champion"]["value"] - promoted["candidate"]["value"]
    )
    assert [item.version for item in versions(workspace)] == [2, 1]


def test_a_tie_is_kept_and_a_margin_asks_for_more(workspace: Workspace) -> None:
    flow(workspace, PARAMS="alpha=1000")
    assert workspace.run("train", PARAMS="alpha=1000") == 0
    assert workspace.run("evaluate") == 0
    assert workspace.record("evaluate")["decision"] == "kept"
    assert workspace.run("train", PARAMS="alpha=1") == 0
    assert workspace.run("evaluate", GATE_MARGIN="1000") == 0
    assert workspace.record("evaluate")["decision"] == "kept"
    assert workspace.run("evaluate") == 0
    assert workspace.record("evaluate")["decision"] == "promoted"


def test_evaluating_a_registered_candidate_again_decides_the_same(workspace: Workspace) -> None:
    flow(workspace, PARAMS="alpha=1000")
    flow(workspace, PARAMS="alpha=1")
    before: Any = workspace.record("evaluate")
    assert workspace.run("evaluate") == 0
    after: Any = workspace.record("evaluate")
    assert (after["decision"], after["champion"]) == (before["decision"], before["champion"])


def test_a_first_model_must_beat_a_dummy(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workspace.run("data") == 0
    assert workspace.run("train", PARAMS="alpha=1e12") == 0
    assert workspace.run("evaluate", GATE_MARGIN="0.5") == 3
    assert "no better than a dummy" in capsys.readouterr().err
    failed: Any = workspace.record("evaluate.failed")
    assert failed["candidate"]["value"] > 0
    assert failed["baseline"] > 0
    assert workspace.run("register") == 2


def test_classifier_with_strings_missing_values_and_an_id(workspace: Workspace) -> None:
    rooms.weather_room(workspace.folder)
    flow(workspace)
    train: Any = workspace.record("train")
    assert (train["kind"], train["columns"]) == ("classifier", ["sky", "pressure", "wind"])
    assert [Path(plot).name for plot in train["plots"]] == ["confusion_matrix.png", "roc.png"]
    evaluate: Any = workspace.record("evaluate")
    assert evaluate["candidate"]["value"] > evaluate["baseline"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("file", "old", "new", "what"),
    [
        ("contract", '"height": Column(float, Check.gt(0)),', "", "columns"),
        ("estimator", 'PRIMARY_METRIC = "mae"', 'PRIMARY_METRIC = "r2"', "metric"),
        ("contract", 'TARGET = "volume"', 'TARGET = "height"', "target"),
    ],
)
def test_a_champion_that_cannot_be_compared_names_the_way_out(
    workspace: Workspace,
    capsys: pytest.CaptureFixture[str],
    file: str,
    old: str,
    new: str,
    what: str,
) -> None:
    flow(workspace)
    path = workspace.folder / "model" / f"{file}.py"
    path.write_text(path.read_text().replace(old, new))
    if what == "columns":
        frame = rooms.wood().drop(columns="height")
        frame.to_csv(workspace.folder / "data" / "wood.csv", index=False)
    if what == "metric":
        path.write_text(path.read_text().replace("BETTER = False", "BETTER = True"))
    assert workspace.run("data") == 0
    assert workspace.run("train") == 0
    assert workspace.run("evaluate") == 2
    error = capsys.readouterr().err
    assert f"champion wood 1 differs from model/ in its {what}" in error
    assert "MODEL_NAME" in error
    assert "CHAMPION=none" in error
    assert workspace.run("evaluate", CHAMPION="none") == 0
    assert workspace.record("evaluate")["decision"] == "first"
    assert workspace.run("register", CHAMPION="none") == 0
    assert [item.version for item in versions(workspace)] == [2, 1]
    # Without CHAMPION=none the decision stands; the next candidate is held against this one.
    assert workspace.run("evaluate") == 0
    assert workspace.record("evaluate")["decision"] == "first"
    assert workspace.run("data") == 0
    assert workspace.run("train") == 0
    assert workspace.run("evaluate") == 0
    assert workspace.record("evaluate")["champion"]["version"] == 2


def test_a_champion_whose_files_are_gone_names_the_way_out(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    flow(workspace, PARAMS="alpha=10")
    [champion] = versions(workspace)
    assert workspace.run("train") == 0
    for model in (workspace.folder / "build" / "mlflow").rglob(f"{champion.run_id}/*/model/*.pkl"):
        model.unlink()
    assert workspace.run("evaluate") == 2
    assert "champion wood 1 cannot be judged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("alpha", "'alpha' is not name=value"),
        ("alhpa=1", "there is no parameter 'alhpa'"),
        ("alpha=-3", "the estimator refuses alpha=-3"),
        ("alpha=Infinity", "the parameters cannot be recorded"),
        ("alpha=much", "the estimator refuses alpha=much"),
        ("alpha='1", "No closing quotation"),
    ],
)
def test_parameters_the_estimator_refuses(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], parameters: str, said: str
) -> None:
    assert workspace.run("data") == 0
    assert workspace.run("train", PARAMS=parameters) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            "estimator.py",
            "def broken(:\n",
            "model/estimator.py line 1 cannot be loaded: SyntaxError",
        ),
        ("estimator.py", "import nothing_here\n", "model/estimator.py line 1 cannot be loaded"),
        ("estimator.py", "PARAMETERS = {}\n", "model/estimator.py does not define build_estimator"),
        ("contract.py", "SCHEMA = {}\n", "model/contract.py defines SCHEMA as dict"),
    ],
)
def test_a_broken_model_room_is_named(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], file: str, text: str, said: str
) -> None:
    (workspace.folder / "model" / file).write_text(text)
    assert workspace.run("data") == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_an_error_in_the_users_own_code_names_its_line(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    estimator = workspace.folder / "model" / "estimator.py"
    estimator.write_text(estimator.read_text().replace("return Ridge(", "return Lasso("))
    assert workspace.run("data") == 0
    assert workspace.run("train") == 1
    assert "model/estimator.py line 10: NameError: name 'Lasso'" in capsys.readouterr().err


def test_a_champion_stays_what_it_was_trained_as(workspace: Workspace) -> None:
    rooms.write_room(
        workspace.folder,
        estimator=rooms.REGRESSOR_ESTIMATOR.replace(
            "return Ridge(**parameters)",
            "return make_pipeline(Scaled(), Ridge(**parameters))",
        ).replace(
            "PARAMETERS =",
            "from sklearn.pipeline import make_pipeline\n"
            "from model.features import Scaled\n\nPARAMETERS =",
        ),
    )
    features = workspace.folder / "model" / "features.py"
    text = (
        "from sklearn.base import BaseEstimator, TransformerMixin\n\n"
        "class Scaled(TransformerMixin, BaseEstimator):\n"
        "    def fit(self, X, y=None):\n        return self\n\n"
        "    def transform(self, X):\n        return X * 1\n"
    )
    features.write_text(text)
    flow(workspace)
    value = workspace.record("evaluate")["candidate"]["value"]
    features.write_text(text.replace("X * 1", "X * 1000"))
    assert workspace.run("train") == 0
    assert workspace.run("evaluate") == 0
    assert workspace.record("evaluate")["champion"]["value"] == pytest.approx(value)


def test_data_that_changed_since_is_not_trained_on(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workspace.run("data") == 0
    rooms.wood(seed=9).to_csv(workspace.folder / "data" / "wood.csv", index=False)
    assert workspace.run("train") == 2
    assert "has changed since `make data`" in capsys.readouterr().err


def test_a_corrupt_registry_is_named_and_left_as_it_is(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    flow(workspace)
    database = workspace.folder / "build" / "mlflow" / "mlflow.db"
    database.write_bytes(b"this was a database" * 1000)
    assert workspace.run("train") == 1
    error = capsys.readouterr().err
    assert "mlflow.db cannot be read" in error
    assert "mend:" in error
    assert database.read_bytes().startswith(b"this was a database")


def test_a_locked_registry_is_named(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    flow(workspace)
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "1")
    database = workspace.folder / "build" / "mlflow" / "mlflow.db"
    holder = sqlite3.connect(database)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        assert workspace.run("train") == 1
    finally:
        holder.rollback()
        holder.close()
    assert "is locked by another process" in capsys.readouterr().err
    assert workspace.run("train") == 0


def _register(folder: str, path: list[str]) -> None:
    os.environ["SLIPWAY_ROOT"] = folder
    sys.path[:0] = path
    from scripts.register import main

    raise SystemExit(main())


def test_register_is_once_per_run_however_often_and_from_how_many(workspace: Workspace) -> None:
    for verb in ("data", "train", "evaluate"):
        assert workspace.run(verb) == 0
    spawn = multiprocessing.get_context("spawn")
    callers = [
        spawn.Process(target=_register, args=(str(workspace.folder), sys.path)) for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
    assert [caller.exitcode for caller in callers] == [0, 0]
    assert workspace.run("register") == 0
    assert [item.version for item in versions(workspace)] == [1]


def test_who_registers_second_is_told_of_the_new_champion(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scripts.platforms.local.tracking import MlflowTracking

    for verb in ("data", "train"):
        assert workspace.run(verb, PARAMS="alpha=1") == 0
    other, register = workspace.record("train")["run_id"], MlflowTracking.register
    for verb in ("train", "evaluate"):
        assert workspace.run(verb, PARAMS="alpha=2") == 0

    def meanwhile(tracking: MlflowTracking, *call: Any) -> Any:
        register(tracking, "wood", other, {}, lambda versions: None)
        return register(tracking, *call)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowTracking, "register", meanwhile)
        assert workspace.run("register") == 2
    assert "wood 1 became champion after the candidate was judged" in capsys.readouterr().err
    assert [item.run_id for item in versions(workspace)] == [other]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_train_leaves_nothing_half_made(
    workspace: Workspace, root: Path, sent: signal.Signals
) -> None:
    assert workspace.run("data") == 0
    estimator = workspace.folder / "model" / "estimator.py"
    whole = estimator.read_text()
    wait = "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(60)"
    estimator.write_text(whole.replace("    return Ridge", f"    {wait}\n    return Ridge"))
    child = subprocess.Popen(
        [sys.executable, "-m", "scripts.train"],
        cwd=workspace.folder,
        env={**os.environ, "PYTHONPATH": f"{workspace.folder}{os.pathsep}{root}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not (workspace.folder / "begun").exists():
        assert time.monotonic() < until, "train never began"
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.05)
    child.send_signal(sent)
    error = child.communicate(timeout=30)[1]
    if sent == signal.SIGKILL:
        assert child.returncode == -sent
    else:
        assert child.returncode == 128 + sent
        assert "interrupted by" in error
        assert "Traceback" not in error
    assert "train" not in workspace.records
    estimator.write_text(whole)
    assert workspace.run("train") == 0
    assert "train.failed" not in workspace.records
