"""Which run a call goes on with, and when it stops to wait; the runs only say how they are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests

from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure import pipeline_runs, streaming
from scripts.platforms.azure.marker import Marker
from scripts.platforms.azure.names import experiment
from scripts.platforms.azure.pipeline_runs import PipelineRuns
from scripts.platforms.azure.streaming import Follower
from scripts.platforms.azure.training import Cluster
from scripts.records import Records
from scripts.settings import Settings
from scripts.verb import Context


class Run:
    """A run of the SDK's, as far as it is looked at."""

    id = "kiln_7"
    experiment = SimpleNamespace(workspace=None)

    def __init__(self, status: str, busy: int = 0) -> None:
        self.status = status
        self.busy = busy

    def get_status(self) -> str:
        return self.status

    def get_details(self) -> dict[str, Any]:
        return {"status": self.status, "target": "kiln-cluster"}

    def get_tags(self) -> dict[str, str]:
        if self.busy:
            self.busy -= 1
            answer = requests.Response()
            answer.status_code = 503
            raise requests.HTTPError("busy", response=answer)
        return {"slipway.model_version": "3"}

    def get_portal_url(self) -> str:
        return "https://ml.azure.com/runs/kiln_7"

    def cancel(self) -> None:
        self.status = "CancelRequested"


@pytest.mark.parametrize(
    ("status", "force", "goes_on"),
    [
        ("Running", "", True),
        ("Running", "1", False),
        ("Completed", "", True),
        ("Completed", "1", False),
        ("Failed", "", False),
        ("CancelRequested", "", False),
    ],
)
def test_a_call_goes_on_with_a_run_that_somebody_still_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, force: str, goes_on: bool
) -> None:
    core = pytest.importorskip("azureml.core")
    run, settings, records = Run(status), Settings(), Records(tmp_path)
    monkeypatch.setattr(core.Run, "get", lambda workspace, run_id: run)
    marker = Marker(records, "train")
    marker.write(inputs="same", run_id=run.id, experiment="kiln")
    context = Context(tmp_path, settings, records, {"FORCE": force})
    tracking = cast("Any", SimpleNamespace(workspace=None))
    found = Cluster(tmp_path, settings, cast("Any", None))._begun(context, tracking, marker, "same")
    assert (found is run) == goes_on


@pytest.mark.parametrize(("busy", "told"), [(1, True), (9, False)])
def test_a_pipelines_run_is_forgotten_once_its_end_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: int, told: bool
) -> None:
    run = Run("Completed", busy)
    monkeypatch.setattr(pipeline_runs, "FAULT_PAUSES", (0.0,))
    monkeypatch.setattr(PipelineRuns, "_begun", lambda self, inputs: run)
    monkeypatch.setattr(PipelineRuns, "_follow", lambda self, run: run.status)
    runs = PipelineRuns(tmp_path, Settings(MODEL_NAME="kiln"), cast("Any", None))
    runs.marker.write(inputs="same", run_id=run.id, experiment="kiln")
    published = SimpleNamespace(id="9")
    if told:
        assert runs.see_through(published, "")["model_version"] == 3
        assert runs.marker.read() is None
    else:
        with pytest.raises(SlipwayError, match="503"):
            runs.see_through(published, "")
        assert runs.marker.read() is not None


@pytest.mark.parametrize(
    ("why", "over"), [("", False), ("no capacity now", False), ("Core quota is 0", True)]
)
def test_a_run_that_can_have_no_node_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, why: str, over: bool
) -> None:
    monkeypatch.setattr(streaming, "QUEUED", 0.0)
    monkeypatch.setattr(streaming, "lack_of_nodes", lambda workspace, cluster: why)
    step, whole = Run("Queued"), Run("Running")
    if over:
        with pytest.raises(SlipwayError, match=f"cluster kiln-cluster has no node: {why}"):
            Follower(step, whole).look()
    else:
        assert Follower(step, whole).look() == "Queued"
    assert whole.status == ("CancelRequested" if over else "Running")


def test_a_name_that_no_experiment_can_have_is_refused() -> None:
    assert experiment(Settings(MODEL_NAME="kiln.v2", EXPERIMENT_NAME="kiln-v2")) == "kiln-v2"
    for settings in (
        Settings(MODEL_NAME="kiln.v2"),
        Settings(MODEL_NAME="kiln", EXPERIMENT_NAME="a.b"),
    ):
        with pytest.raises(UsageError) as refused:
            experiment(settings)
        assert "EXPERIMENT_NAME" in refused.value.mend
