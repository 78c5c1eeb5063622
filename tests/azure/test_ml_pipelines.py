"""azureml-sdk against the stand-in: pipelines that are published, triggered, cancelled and disabled."""

from __future__ import annotations

import itertools

import pytest

from tests.azure.mlclient import ClientError, MlClient

pytestmark = pytest.mark.azure

TRAIN = """
import os, sys
from azureml.core import Run
run = Run.get_context()
print("training", sys.argv[2], flush=True)
run.parent.tag("trained", run.id)
run.log("mse", 1.5)
run.flush()
os.makedirs(sys.argv[4], exist_ok=True)
open(os.path.join(sys.argv[4], "model.txt"), "w").write("model " + sys.argv[2] + os.environ["AML_PARAMETER_model_name"])
if sys.argv[2] == "bad":
    raise SystemExit(4)
"""
JUDGE = """
import os, sys, time
from azureml.core import Run
run = Run.get_context()
text = open(os.path.join(sys.argv[1], "model.txt")).read()
print("judging", text, flush=True)
run.parent.tag("judged", text)
if "worse" in text:
    run.parent.tag("reason", "not better")
    run.parent.cancel()
    time.sleep(60)
"""
REGISTER = """
from azureml.core import Model, Run
run = Run.get_context()
open("m.txt", "w").write("x")
Model.register(run.experiment.workspace, "m.txt", "piped", tags={"run": run.parent.get_tags()["trained"]})
"""


@pytest.fixture(scope="module", autouse=True)
def published(ml: MlClient) -> None:
    """A pipeline of three steps: data goes from one to the next."""
    ml.do(
        f"""
import requests
from azureml.core import Environment, Experiment, Model
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.runconfig import RunConfiguration
from azureml.pipeline.core import Pipeline, PipelineData, PipelineParameter, PipelineRun, PublishedPipeline
from azureml.pipeline.steps import CommandStep, PythonScriptStep
wanted = AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", max_nodes=1)
ComputeTarget.create(ws, "train-cluster", wanted).wait_for_completion()
environment = Environment("toolbox")
environment.docker.base_image = "kilncr.azurecr.io/toolbox:1"
environment.python.user_managed_dependencies = True
configuration = RunConfiguration()
configuration.target, configuration.environment = "train-cluster", environment.register(ws)
os.makedirs("steps", exist_ok=True)
for name, code in (("train", {TRAIN!r}), ("judge", {JUDGE!r}), ("register", {REGISTER!r})):
    open(f"steps/{{name}}.py", "w").write(code)
common = dict(source_directory="steps", compute_target="train-cluster", runconfig=configuration, allow_reuse=False)
name = PipelineParameter("model_name", "first")
made = PipelineData("made", datastore=ws.get_default_datastore())
train = PythonScriptStep(name="train", script_name="train.py", arguments=["--name", name, "--out", made],
                         outputs=[made], **common)
judge = PythonScriptStep(name="judge", script_name="judge.py", arguments=[made], inputs=[made], **common)
register = CommandStep(name="register", command=["python", "register.py"], **common)
register.run_after(judge)
pipeline = Pipeline(ws, steps=[train, judge, register])
pipeline.validate()
published = pipeline.publish(name="training", description="three steps", version="20260101.1")
"""
    )


def test_what_is_published_is_found(ml: MlClient) -> None:
    found = ml.do(
        """
listed = [p.id for p in PublishedPipeline.list(ws)]
again = PublishedPipeline.get(ws, published.id)
result = [listed == [published.id], again.name, again.version, again.endpoint]
"""
    )
    assert found[:3] == [True, "training", "20260101.1"]
    assert found[3].startswith("https://westeurope.api.azureml.ms/pipelines/v1.0/subscriptions/")


def test_steps_execute_in_order_with_parameters_and_data(ml: MlClient) -> None:
    found = ml.do(
        """
run = published.submit(ws, "grades", pipeline_parameters={"model_name": "second"})
run.wait_for_completion(show_output=False)
steps = list(run.get_steps())
train_run = run.find_step_run("train")[0]
result = {"status": run.get_status(), "details": run.get_details()["status"], "tags": run.get_tags(),
          "steps": [step.name for step in steps], "ends": sorted({step.get_status() for step in steps}),
          "metrics": train_run.get_metrics(), "trained": run.get_tags()["trained"] == train_run.id,
          "model": Model(ws, "piped").tags["run"] == train_run.id, "ordered": sorted(
              (s.get_details()["startTimeUtc"], s.get_details()["endTimeUtc"], s.name) for s in steps)}
"""
    )
    assert found["status"] == "Finished"
    assert found["details"] == "Completed"
    assert found["ends"] == ["Finished"]
    assert found["tags"]["judged"] == "model secondsecond"
    assert found["metrics"] == {"mse": 1.5}
    assert found["trained"]
    assert found["model"]
    ordered = found["ordered"]
    assert [name for _, _, name in ordered] == ["train", "judge", "register"]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ordered))


def test_a_step_that_cancels_the_run_keeps_the_rest_out(ml: MlClient) -> None:
    found = ml.do(
        """
run = Experiment(ws, "grades").submit(published, pipeline_parameters={"model_name": "worse"}, tags={"BuildId": "8"})
run.wait_for_completion(show_output=False, raise_on_error=False)
while run.get_details()["status"] not in ("Canceled", "Completed", "Failed"):
    pass
result = {"status": run.get_status(), "tags": run.get_tags(), "steps": {s.name: s.get_details()["status"]
          for s in run.get_steps()}, "models": len(Model.list(ws, "piped"))}
"""
    )
    assert found["status"] == "Canceled"
    assert found["tags"]["reason"] == "not better"
    assert found["tags"]["BuildId"] == "8"
    assert found["steps"] == {"train": "Completed", "judge": "Canceled"}
    assert found["models"] == 1


def test_a_step_that_fails_ends_the_run(ml: MlClient) -> None:
    found = ml.do(
        """
run = published.submit(ws, "grades", pipeline_parameters={"model_name": "bad"})
run.wait_for_completion(show_output=False, raise_on_error=False)
result = {"status": run.get_status(), "steps": {s.name: s.get_status() for s in run.get_steps()},
          "error": run.get_details()["error"]["error"]["message"]}
"""
    )
    assert found["status"] == "Failed"
    assert found["steps"] == {"train": "Failed"}
    assert "train" in found["error"]


def test_a_trigger_by_rest_and_a_disabled_pipeline(ml: MlClient) -> None:
    found = ml.do(
        """
def trigger(headers):
    body = {"ExperimentName": "by-rest", "ParameterAssignments": {"model_name": "third"}}
    return requests.post(published.endpoint, headers=headers, json=body)
refused = trigger({}).status_code
run_id = trigger(auth.get_authentication_header()).json()["Id"]
run = PipelineRun(Experiment(ws, "by-rest"), run_id)
run.wait_for_completion(show_output=False)
newer = pipeline.publish(name="training", description="the same", version="20260101.2")
published.disable()
result = {"refused": refused, "status": run.get_status(), "judged": run.get_tags()["judged"],
          "active": [p.version for p in PublishedPipeline.list(ws)],
          "all": sorted(p.version for p in PublishedPipeline.list(ws, active_only=False)),
          "disabled": trigger(auth.get_authentication_header()).status_code}
"""
    )
    assert found["refused"] == 401
    assert found["status"] == "Finished"
    assert found["judged"] == "model thirdthird"
    assert found["active"] == ["20260101.2"]
    assert found["all"] == ["20260101.1", "20260101.2"]
    assert found["disabled"] == 400
    with pytest.raises(ClientError, match="Not Found"):
        ml.do('PublishedPipeline.get(ws, "00000000-0000-0000-0000-000000000000")')
