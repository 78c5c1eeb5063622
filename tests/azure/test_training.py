"""`train`, `evaluate` and `register` on Azure: the run on the cluster, the gate, the registry."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import rooms
from tests.azure.conftest import AzureClone
from tests.azure.ml_clone import borrowed, make_ml_clone, model_versions, worse_model
from tests.azure.standin.standin import StandIn

pytestmark = pytest.mark.azure


@pytest.fixture(scope="module")
def shared(
    root: Path, tmp_path_factory: pytest.TempPathFactory, shared_standin: StandIn
) -> AzureClone:
    return make_ml_clone(root, tmp_path_factory.mktemp("training") / "clone", shared_standin)


@pytest.fixture
def clone(shared: AzureClone) -> Iterator[AzureClone]:
    """The module's clone, with the tests' own model room again."""
    yield from borrowed(shared)


def uploads(clone: AzureClone, mark: int) -> list[str]:
    """The data files that were put into the datastore after the first `mark` calls."""
    calls = clone.standin.world.calls.since(mark)
    return [call.path for call in calls if call.method == "PUT" and "/slipway/data/" in call.path]


def test_a_candidate_is_trained_judged_and_registered(clone: AzureClone) -> None:
    mark = len(clone.standin.world.calls)
    clone.run("data")
    said = clone.run("train", BUILD_BUILDID="41", BUILD_URI="https://ci/41")
    train = clone.records["train"]
    # What it waits for is said, and the node's log comes line by line.
    assert re.search(r"making cluster train-cluster: 0 to 4 nodes of STANDARD_DS2_V2", said)
    assert re.search(r"submitting run wood_\w+ to cluster train-cluster", said)
    assert re.search(r"\| +fitting on 94 rows", said)
    assert train["outcome"] == "done"
    assert train["build_id"] == "41"
    assert train["parameters"] == {"alpha": 1.0}
    assert train["data_sha256"] == clone.records["data"]["sha256"]
    assert train["plots"]
    for plot in train["plots"]:
        assert (clone.path / plot).read_bytes()
    assert len(set(uploads(clone, mark))) == 1
    clone.run("evaluate")
    assert clone.records["evaluate"]["decision"] == "first"
    clone.run("register")
    assert clone.records["register"]["version"] == 1
    (version,) = model_versions(clone)
    assert version["runId"] == train["run_id"]
    tags = version["kvTags"]
    assert tags["run_id"] == train["run_id"]
    assert tags["experiment_name"] == "wood"
    assert tags["BuildId"] == "41"
    assert tags["BuildUri"] == "https://ci/41"
    assert tags["data_sha256"] == train["data_sha256"]
    assert tags["decision"] == "first"
    assert '"mae"' in tags["metrics"]


def test_the_champion_of_the_workspace_scores_files(clone: AzureClone) -> None:
    out = clone.path / "scored.csv"
    printed = clone.run("batch_score", INPUT="data/wood.csv", OUTPUT=str(out))
    version = len(model_versions(clone))
    assert f"version {version}" in printed
    rows = (clone.path / "data" / "wood.csv").read_text().count("\n")
    assert out.read_text().count("\n") == rows
    assert "https://ml.azure.com/experiments?wsid=" in clone.run("ui")


def test_the_better_replaces_the_champion_and_the_worse_is_kept_out(clone: AzureClone) -> None:
    clone.run("data")
    clone.run("train", PARAMS="alpha=2000")
    clone.run("evaluate", CHAMPION="none")
    clone.run("register", CHAMPION="none")
    started = len(model_versions(clone))
    mark = len(clone.standin.world.calls)

    clone.run("train", PARAMS="alpha=0.5")
    clone.run("evaluate")
    clone.run("register")
    better = clone.records["register"]
    assert clone.records["evaluate"]["decision"] == "promoted"
    assert better["version"] == started + 1
    assert model_versions(clone)[-1]["kvTags"]["decision"] == "promoted"

    worse_model(clone)
    clone.run("train")
    assert "kept" in clone.run("evaluate")
    clone.run("register")
    kept = clone.records["register"]
    assert kept["outcome"] == "kept"
    assert kept["version"] == better["version"]
    assert len(model_versions(clone)) == started + 1
    # The file was in the datastore already.
    assert uploads(clone, mark) == []


def test_a_mistake_in_the_model_room_is_told_as_at_home(clone: AzureClone) -> None:
    clone.run("data")
    said = clone.run("train", code=2, PARAMS="alpha=many")
    assert "the estimator refuses alpha=many" in said
    assert clone.records["train.failed"]["code"] == 2
    estimator = "import os\nprint('last words', flush=True)\nos._exit(7)\n"
    (clone.path / "model" / "estimator.py").write_text(estimator)
    said = clone.run("train", code=1)
    assert "| last words" in said
    assert re.search(r"error: run wood_\w+ failed", said)
    assert "Traceback" not in said


def test_an_interrupted_call_goes_on_with_its_run(clone: AzureClone) -> None:
    slow = rooms.REGRESSOR_ESTIMATOR.replace(
        "def build_estimator(parameters):\n",
        "def build_estimator(parameters):\n    import time; time.sleep(15)\n",
    )
    (clone.path / "model" / "estimator.py").write_text(slow)
    clone.run("data")
    child = clone.start("train")
    assert child.stdout is not None
    seen = ""
    until = time.monotonic() + 120
    while "fitting on" not in seen and time.monotonic() < until:
        seen += child.stdout.readline()
    child.send_signal(signal.SIGINT)
    rest, _ = child.communicate(timeout=60)
    (run_id,) = re.findall(r"submitting run (\S+) to", seen)
    assert child.returncode == 130, rest
    assert f"run {run_id} goes on without us" in rest
    said = clone.run("train")
    assert f"going on with run {run_id}" in said
    assert "submitting" not in said
    assert clone.records["train"]["run_id"] == run_id


@pytest.mark.slow
def test_a_cluster_is_scaled_but_its_nodes_never_change(clone: AzureClone) -> None:
    clone.run("data")
    clone.run("train")
    clone.save(AML_CLUSTER_MAX_NODES="6")
    assert "cluster train-cluster: from now on 0 to 6 nodes" in clone.run("train")
    clone.save(AML_COMPUTE_CLUSTER_CPU_SKU="STANDARD_D3_V2")
    said = clone.run("train", code=2, PARAMS="alpha=3")
    assert "has nodes of STANDARD_DS2_V2" in said
    assert "AML_COMPUTE_CLUSTER_NAME" in said.split("mend:")[1]
    clone.save(AML_COMPUTE_CLUSTER_CPU_SKU="STANDARD_DS2_V2", AML_CLUSTER_PRIORITY="dedicated")
    said = clone.run("train", code=2, PARAMS="alpha=3")
    assert "has nodes of lowpriority, but AML_CLUSTER_PRIORITY is dedicated" in said


@pytest.mark.slow
def test_a_version_of_the_data_set_can_be_asked_for(clone: AzureClone) -> None:
    clone.run("data")
    clone.save(DATASET_VERSION="99")
    said = clone.run("train", code=2, PARAMS="alpha=4")
    assert "data set wood-data 99 does not exist" in said
    clone.save(DATASET_VERSION="1")
    clone.run("train", PARAMS="alpha=4")
    rooms.wood(seed=3).to_csv(clone.path / "data" / "wood.csv", index=False)
    clone.run("data")
    said = clone.run("train", code=2, PARAMS="alpha=4")
    assert "does not hold the file that DATA_PATH names" in said
    clone.save(DATASET_VERSION="latest")
    said = clone.run("train", PARAMS="alpha=4")
    assert "data set wood-data 2" in said


def test_a_data_file_that_is_not_here_comes_from_the_workspace(clone: AzureClone) -> None:
    file = clone.path / "data" / "wood.csv"
    clone.run("data")
    clone.run("train")
    content, checked = file.read_bytes(), clone.records["data"]
    # Another machine's newer version does not take its place.
    rooms.wood(seed=5).to_csv(file, index=False)
    clone.run("data")
    clone.run("train", PARAMS="alpha=5")
    newer = file.read_bytes()
    file.unlink()
    (clone.folder / "data.json").write_text(json.dumps(checked))
    assert "fetching wood.csv from datastore workspaceblobstore" in clone.run("data")
    assert file.read_bytes() == content
    # The candidate has learned from the newer one.
    assert "wood.csv has changed since `make train`" in clone.run("evaluate", code=2)
    # A fresh clone knows no hash: it takes the newest, or the one asked for.
    for version, expected in (("latest", newer), ("1", content)):
        file.unlink()
        (clone.folder / "data.json").unlink()
        said = clone.run("data", DATASET_VERSION=version)
        assert re.search(r"fetching data set wood-data \d", said)
        assert file.read_bytes() == expected
    assert list(file.parent.iterdir()) == [file]
    file.unlink()
    (clone.folder / "data.json").unlink()
    said = clone.run("data", code=2, DATASET_NAME="nothing-yet")
    assert "DATA_PATH=data/wood.csv: there is no such file" in said


def secrets_in(text: str, clone: AzureClone) -> bool:
    return clone.standin.world.app_secret in text


def test_no_secret_travels_with_a_run(clone: AzureClone) -> None:
    runs: dict[str, Any] = {}
    for path in clone.standin.world.folder.rglob("*"):
        if path.is_file() and path.stat().st_size < 5_000_000:
            text = path.read_bytes().decode("utf-8", "replace")
            if secrets_in(text, clone):
                runs[str(path)] = text
    assert not runs


@pytest.mark.slow
def test_a_run_that_loses_its_node_begins_again(clone: AzureClone) -> None:
    clone.run("data")
    clone.standin.world.faults.trouble("node preempted", 1)
    clone.run("train", PARAMS="alpha=7")
    assert clone.records["train"]["parameters"] == {"alpha": 7}


@pytest.mark.slow
def test_a_run_that_azure_fails_can_be_had_again(clone: AzureClone) -> None:
    clone.run("data")
    clone.standin.world.faults.trouble("a run fails", 1)
    said = clone.run("train", code=1, PARAMS="alpha=8")
    assert "the node stopped responding" in said or "AzureMLCompute job failed" in said
    assert "run `make train` again" in said
    clone.run("train", PARAMS="alpha=8")
    assert clone.records["train"]["parameters"] == {"alpha": 8}
