"""The three stages as a published pipeline of Azure ML, from the very code of the verbs."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.errors import UsageError
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.job import Job, arguments
from scripts.platforms.azure.pipelines import AzurePipelines
from scripts.settings import Settings
from tests import rooms
from tests.azure.conftest import AzureClone
from tests.azure.ml_clone import borrowed, make_ml_clone, model_versions, runs, worse_model
from tests.azure.ml_place import WS_ID
from tests.azure.standin.ml import graphs
from tests.azure.standin.standin import StandIn
from tests.records_schema import validate

pytestmark = pytest.mark.azure


@pytest.fixture(scope="module")
def shared(
    root: Path, tmp_path_factory: pytest.TempPathFactory, shared_standin: StandIn
) -> AzureClone:
    return make_ml_clone(root, tmp_path_factory.mktemp("pipelines") / "clone", shared_standin)


@pytest.fixture
def clone(shared: AzureClone) -> Iterator[AzureClone]:
    """The module's clone, with the tests' own model room and settings again."""
    yield from borrowed(shared)


def steps(clone: AzureClone, run_id: str) -> list[str]:
    """The steps that a pipeline's run began, by name."""
    return [run["name"] for run in runs(clone).values() if run["parentRunId"] == run_id]


def run_of(clone: AzureClone) -> Any:
    return runs(clone)[clone.records["run-pipeline"]["run_id"]]


def test_a_pipeline_trains_judges_and_registers(clone: AzureClone) -> None:
    said = clone.run("publish_pipeline", BUILD_BUILDID="101")
    published = clone.records["publish-pipeline"]
    assert published["pipeline_version"] == "101"
    assert published["steps"] == ["train", "evaluate", "register"]
    assert f"pipeline wood-training 101: {published['pipeline_id']}" in said
    # Published once: nothing has changed.
    again = clone.run("publish_pipeline", BUILD_BUILDID="101")
    assert published["pipeline_id"] in again
    assert "publishing" not in again

    said = clone.run("run_pipeline", BUILD_BUILDID="101", BUILD_URI="https://ci/101")
    assert re.search(r"\| +fitting on 94 rows", said)
    record = clone.records["run-pipeline"]
    assert record["outcome"] == "done"
    assert record["pipeline_id"] == published["pipeline_id"]
    assert record["model_version"] == 1
    assert steps(clone, record["run_id"]) == ["train", "evaluate", "register"]
    (version,) = model_versions(clone)
    tags = version["kvTags"]
    assert tags["BuildId"] == "101"
    assert tags["BuildUri"] == "https://ci/101"
    assert tags["experiment_name"] == "wood"
    assert tags["decision"] == "first"
    assert tags["run_id"] == version["runId"]
    assert runs(clone)[version["runId"]]["parentRunId"] == record["run_id"]
    assert run_of(clone)["tags"]["slipway.outcome"] == "done"
    for verb in ("publish-pipeline", "run-pipeline"):
        validate(verb, clone.records[verb])
    # Azure keeps the file once: another model's pipeline finds it where the first one's is.
    clone.run("publish_pipeline", MODEL_NAME="wood2", BUILD_BUILDID="101")
    modules = graphs.kept(clone.standin.world.rooms["ml"].workspace(WS_ID)).modules.values()
    *_, train = [module["StructuredInterface"] for module in modules if module["Name"] == "train"]
    given = [argument["Value"] for argument in train["Arguments"]]
    assert given[given.index("--dataset-name") + 1] == "wood-data"


@pytest.mark.parametrize("version", ["v2", "0"])
def test_a_version_that_is_none_is_refused_before_the_run_and_on_the_node(
    version: str, tmp_path: Path
) -> None:
    settings = Settings(MODEL_NAME="wood", DATASET_VERSION=version)
    with pytest.raises(UsageError, match=f"DATASET_VERSION={version} should be a number"):
        AzurePipelines(tmp_path, settings, Az(settings)).run(wait=True)
    job = object.__new__(Job)
    job.stage, job.options = "train", arguments(["train", "--dataset-version", version])
    platform: Any = SimpleNamespace(tracking=SimpleNamespace(workspace=None), settings=settings)
    with pytest.raises(UsageError, match=f"DATASET_VERSION={version} should be a number"):
        job._with_data(platform, SimpleNamespace(root=tmp_path))  # type: ignore[arg-type]


def test_a_worse_candidate_cancels_the_run_and_says_why(clone: AzureClone) -> None:
    before = len(model_versions(clone))
    worse_model(clone)
    clone.run("publish_pipeline", BUILD_BUILDID="102")
    said = clone.run("run_pipeline", BUILD_BUILDID="102")
    record = clone.records["run-pipeline"]
    assert record["outcome"] == "kept"
    assert record["model_version"] is None
    assert "= kept: mae" in said
    run = run_of(clone)
    assert run["status"] == "Canceled"
    assert run["tags"]["slipway.outcome"] == "kept"
    assert run["tags"]["slipway.reason"].startswith("kept: mae")
    assert "register" not in steps(clone, record["run_id"])
    assert len(model_versions(clone)) == before


@pytest.mark.slow
def test_without_leave_to_cancel_the_run_ends_and_registers_nothing(clone: AzureClone) -> None:
    before = len(model_versions(clone))
    worse_model(clone)
    clone.save(ALLOW_RUN_CANCEL="false")
    clone.run("publish_pipeline", BUILD_BUILDID="103")
    clone.run("run_pipeline", BUILD_BUILDID="103")
    assert clone.records["run-pipeline"]["outcome"] == "kept"
    assert run_of(clone)["status"] == "Completed"
    assert len(model_versions(clone)) == before


@pytest.mark.slow
def test_the_gate_can_be_left_out_and_a_better_candidate_replaces_what_came_in(
    clone: AzureClone,
) -> None:
    before = len(model_versions(clone))
    worse_model(clone)
    clone.save(RUN_EVALUATION="false")
    clone.run("publish_pipeline", BUILD_BUILDID="105")
    assert clone.records["publish-pipeline"]["steps"] == ["train", "register"]
    clone.run("run_pipeline", BUILD_BUILDID="105")
    record = clone.records["run-pipeline"]
    assert steps(clone, record["run_id"]) == ["train", "register"]
    assert record["model_version"] == before + 1
    assert model_versions(clone)[-1]["kvTags"]["decision"] == "unjudged"

    rooms.write_room(clone.path)
    clone.save(RUN_EVALUATION="true")
    clone.run("publish_pipeline", BUILD_BUILDID="104")
    clone.run("run_pipeline", BUILD_BUILDID="104")
    assert clone.records["run-pipeline"]["outcome"] == "done"
    assert clone.records["run-pipeline"]["model_version"] == before + 2
    assert model_versions(clone)[-1]["kvTags"]["decision"] == "promoted"


def test_an_interrupted_call_goes_on_with_its_run(clone: AzureClone) -> None:
    slow = rooms.REGRESSOR_ESTIMATOR.replace(
        "def build_estimator(parameters):\n",
        "def build_estimator(parameters):\n    import time; time.sleep(8)\n",
    )
    (clone.path / "model" / "estimator.py").write_text(slow)
    clone.run("publish_pipeline", BUILD_BUILDID="109")
    asked = {"BUILD_BUILDID": "109", "PARAMS": "alpha=2.5"}
    child = clone.start("run_pipeline", **asked)
    assert child.stdout is not None
    seen = ""
    for line in child.stdout:
        seen += line
        # The run may be there already, though its id was not told yet.
        if "running pipeline" in line:
            child.send_signal(signal.SIGINT)
            break
    rest, _ = child.communicate(timeout=60)
    assert child.returncode == 130, rest
    (run_id,) = re.findall(r"run (\S+): https://", seen + rest)
    assert "the same `make run-pipeline` goes on with it" in rest
    said = clone.run("run_pipeline", **asked)
    assert f"going on with run {run_id}" in said
    assert "running pipeline" not in said
    assert clone.records["run-pipeline"]["run_id"] == run_id
    (train, *_) = [run for run in runs(clone).values() if run["parentRunId"] == run_id]
    assert train["tags"]["alpha"] == "2.5"
    # It was seen to its end: the next call begins another one.
    assert "going on" not in clone.run("run_pipeline", BUILD_BUILDID="109", PARAMS="alpha=2")


def test_a_job_elsewhere_may_run_it(clone: AzureClone) -> None:
    clone.run("publish_pipeline", BUILD_BUILDID="106")
    before = len(runs(clone))
    clone.run("run_pipeline", BUILD_BUILDID="106", WAIT="0")
    found = (clone.folder / "pipeline_id.txt").read_text().strip()
    assert found == clone.records["publish-pipeline"]["pipeline_id"]
    assert clone.records["run-pipeline"]["run_id"] is None
    assert len(runs(clone)) == before


@pytest.mark.slow
def test_older_pipelines_can_be_disabled(clone: AzureClone) -> None:
    clone.save(DISABLE_OLDER_PIPELINES="true")
    clone.run("publish_pipeline", BUILD_BUILDID="107")
    said = clone.run("run_pipeline", code=2, BUILD_BUILDID="106")
    assert "no pipeline wood-training of version 106 is published" in said
    assert "make publish-pipeline" in said
    clone.run("run_pipeline", BUILD_BUILDID="107", WAIT="0")


@pytest.mark.slow
def test_a_step_that_fails_is_shown_with_its_reason(clone: AzureClone) -> None:
    estimator = rooms.REGRESSOR_ESTIMATOR.replace("Ridge(**parameters)", "Ridge(alpha='many')")
    (clone.path / "model" / "estimator.py").write_text(estimator)
    clone.save(TRAINING_PIPELINE_NAME="kiln-line")
    clone.run("publish_pipeline", BUILD_BUILDID="108")
    assert clone.records["publish-pipeline"]["pipeline_name"] == "kiln-line"
    said = clone.run("run_pipeline", code=1, BUILD_BUILDID="108")
    assert "train: the estimator refuses" in said
    assert clone.records["run-pipeline.failed"]["code"] == 1
    assert "run-pipeline" not in clone.records
    assert "Traceback" not in said
