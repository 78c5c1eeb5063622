"""azureml-sdk against the stand-in: clusters, environments and runs that execute for real."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.azure.ml_place import RG
from tests.azure.mlclient import ClientError, MlClient
from tests.azure.standin.standin import StandIn

pytestmark = pytest.mark.azure

SUBMIT = """
import time
def submit(name, code, command=None, **more):
    os.makedirs(name, exist_ok=True)
    open(f"{name}/train.py", "w").write(code)
    configuration = ScriptRunConfig(source_directory=name, compute_target="train-cluster", environment=environment,
                                    command=command or ["python", "train.py"], **more)
    return Experiment(ws, "grades").submit(configuration, tags={"BuildId": "9"})

def wait(run):
    # The SDK itself takes a run that is being cancelled for one that has ended.
    while run.get_status() not in ("Completed", "Failed", "Canceled"):
        time.sleep(0.3)
"""


@pytest.fixture(scope="module", autouse=True)
def cluster(ml: MlClient) -> None:
    """The cluster and the environment that the runs here use."""
    ml.do(
        """
from azureml.core import Environment, Experiment, Run, ScriptRunConfig
from azureml.core.compute import AmlCompute, ComputeTarget
wanted = AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", min_nodes=0, max_nodes=1)
cluster = ComputeTarget.create(ws, "train-cluster", wanted)
cluster.wait_for_completion()
environment = Environment("toolbox")
environment.docker.base_image = "kilncr.azurecr.io/slipway/toolbox@sha256:" + "0" * 64
environment.python.user_managed_dependencies = True
environment.environment_variables = {}
environment = environment.register(ws)
"""
        + SUBMIT
    )


def test_a_cluster_is_made_found_scaled_and_deleted(ml: MlClient) -> None:
    found = ml.do(
        """
status = cluster.get_status()
cluster.update(max_nodes=2)
again = ComputeTarget(ws, "train-cluster")
other = ComputeTarget.create(ws, "other", AmlCompute.provisioning_configuration(
    vm_size="Standard_DS3_v2", vm_priority="lowpriority", min_nodes=1, max_nodes=1))
other.wait_for_completion(min_node_count=1)
result = {"state": cluster.provisioning_state, "size": cluster.vm_size, "nodes": status.current_node_count,
          "most": again.scale_settings.maximum_node_count, "all": sorted(ws.compute_targets),
          "priority": other.vm_priority, "other": other.get_status().current_node_count}
other.delete()
cluster.update(max_nodes=1)
"""
    )
    assert found["state"] == "Succeeded"
    assert found["size"].upper() == "STANDARD_D2_V2"
    assert (found["nodes"], found["most"], found["other"]) == (0, 2, 1)
    assert found["all"] == ["other", "train-cluster"]
    assert found["priority"].lower() == "lowpriority"
    with pytest.raises(ClientError, match="ComputeTargetNotFound"):
        ml.do('ComputeTarget(ws, "nobody")')
    with pytest.raises(ClientError, match="not supported"):
        ml.do(
            """ComputeTarget.create(ws, "x1", AmlCompute.provisioning_configuration(vm_size="STANDARD_Z9", max_nodes=1))"""
        )


def test_no_quota_is_told(ml: MlClient, ml_standin: StandIn) -> None:
    ml_standin.world.faults.trouble("no quota for the cluster", 1)
    found = ml.do(
        """
small = ComputeTarget.create(ws, "small", AmlCompute.provisioning_configuration(
    vm_size="STANDARD_D2_V2", min_nodes=1, max_nodes=1))
small.refresh_state()
result = [small.provisioning_state, str(small.provisioning_errors)]
"""
    )
    assert found[0] == "Failed"
    assert "quota" in found[1]


def test_a_kubernetes_cluster_is_attached(ml: MlClient, ml_standin: StandIn) -> None:
    kind = "Microsoft.ContainerService/managedClusters"
    cluster = f"{RG}/providers/{kind}/kiln-aks"
    pool = {"count": 3, "vmSize": "Standard_DS2_v2"}
    ml_standin.world.resources[cluster.lower()] = {
        "id": cluster,
        "name": "kiln-aks",
        "type": kind,
        "location": "westeurope",
        "properties": {"fqdn": "kiln.hcp.westeurope.azmk8s.io", "agentPoolProfiles": [pool]},
    }
    found = ml.do(
        f"""
from azureml.core.compute import AksCompute
aks = ComputeTarget.attach(ws, "kiln-aks", AksCompute.attach_configuration(resource_id="{cluster}"))
aks.wait_for_completion()
again = ComputeTarget(ws, "kiln-aks")
result = [again.type, again.cluster_resource_id, again.provisioning_state, again.agent_count]
again.detach()
"""
    )
    assert found == ["AKS", cluster, "Succeeded", 3]
    with pytest.raises(ClientError, match="was not found"):
        ml.do(
            f"""ComputeTarget.attach(ws, "other-aks", AksCompute.attach_configuration(resource_id="{cluster}x"))"""
        )


def test_environments_have_versions(ml: MlClient) -> None:
    found = ml.do(
        """
same = Environment.get(ws, "toolbox")
other = Environment("toolbox")
other.docker.base_image = "kilncr.azurecr.io/slipway/toolbox@sha256:" + "1" * 64
other.python.user_managed_dependencies = True
other = other.register(ws)
build = other.build(ws)
build.wait_for_completion(show_output=False)
result = {"versions": [environment.version, same.version, other.version], "image": same.docker.base_image,
          "listed": sorted(Environment.list(ws)), "built": build.status}
"""
    )
    assert found["versions"] == ["1", "1", "2"]
    assert found["image"].endswith("0" * 64)
    assert found["listed"] == ["toolbox"]
    assert found["built"] == "Succeeded"


def test_a_run_executes_and_leaves_what_it_made(ml: MlClient) -> None:
    found = ml.do(
        '''
run = submit("good", """
import os, time
from azureml.core import Run
run = Run.get_context()
print("hello from", run.id, flush=True)
run.log("mse", 2.5)
run.flush()
run.tag("lineage", "abc")
os.makedirs("outputs/model", exist_ok=True)
open("outputs/model/weights.txt", "w").write("weights of " + os.environ["MODEL_NAME"])
open("logs/more.log", "w").write("more")
run.upload_file("records/train.json", "train.py")
time.sleep(2)
print("bye", flush=True)
""", command=["MODEL_NAME=diabetes", "python", "train.py"])
run.wait_for_completion(show_output=True)
run.download_file("outputs/model/weights.txt", "weights.txt")
details = run.get_details()
result = {"status": run.get_status(), "metrics": run.get_metrics(), "tags": run.get_tags(),
          "files": run.get_file_names(), "weights": open("weights.txt").read(), "snapshot": run.get_snapshot_id(),
          "target": details["target"], "environment": run.get_environment().name}
'''
    )
    assert found["status"] == "Completed"
    assert found["metrics"] == {"mse": 2.5}
    assert found["tags"]["lineage"] == "abc"
    assert found["tags"]["BuildId"] == "9"
    assert found["weights"] == "weights of diabetes"
    assert {
        "logs/more.log",
        "outputs/model/weights.txt",
        "records/train.json",
        "user_logs/std_log.txt",
    } == set(found["files"])
    assert found["target"] == "train-cluster"
    assert found["environment"] == "toolbox"
    assert "Streaming user_logs/std_log.txt" in ml.printed
    assert "hello from grades_" in ml.printed
    assert "bye" in ml.printed


def test_a_run_that_fails_says_why(ml: MlClient) -> None:
    found = ml.do(
        """
run = submit("bad", "raise ValueError('no such column')")
run.wait_for_completion(raise_on_error=False)
details = run.get_details()
result = [run.get_status(), details["error"]["error"]["message"]]
"""
    )
    assert found[0] == "Failed"
    assert "exited with status code 1" in found[1]
    assert "no such column" in found[1]


def test_cancelling_ends_the_process(ml: MlClient, ml_standin: StandIn) -> None:
    found = ml.do(
        """
run = submit("long", "import time, os; print(os.getpid(), flush=True); time.sleep(600)")
import time
while run.get_status() != "Running" or "user_logs/std_log.txt" not in run.get_file_names():
    time.sleep(0.3)
run.cancel()
wait(run)
result = [run.get_status(), run.get_details()["logFiles"]["user_logs/std_log.txt"]]
import requests
for _ in range(20):
    result.append(int(requests.get(result[1]).text or 0))
    if result[-1]:
        break
    time.sleep(0.3)
"""
    )
    assert found[0] == "Canceled"
    process = found[-1]
    assert process > 0
    end = time.monotonic() + 10
    while Path(f"/proc/{process}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{process}").exists()


def test_troubles_of_runs(ml: MlClient, ml_standin: StandIn) -> None:
    faults = ml_standin.world.faults
    quick = "import time; print('at work', flush=True); time.sleep(1.5)"
    for trouble, status in (
        ("a run fails", "Failed"),
        ("a run is cancelled", "Canceled"),
        ("node preempted", "Completed"),
    ):
        faults.trouble(trouble, 1)
        found = ml.do(
            f"""
run = submit("quick", {quick!r})
wait(run)
run.download_file("user_logs/std_log.txt", "log.txt")
result = [run.get_status(), open("log.txt").read()]
"""
        )
        assert found[0] == status
        assert found[1].count("at work") == (2 if trouble == "node preempted" else 1)
    faults.trouble("snapshot too large")
    with pytest.raises(ClientError, match="300 MB"):
        ml.do('submit("quicker", "print(1)")')
    faults.clear()
