"""azureml-sdk against the stand-in: runs in a container of their environment's image."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.azure.images import server_image
from tests.azure.mlclient import MlClient
from tests.azure.standin.containers import engine
from tests.azure.standin.standin import StandIn

pytestmark = [pytest.mark.azure, pytest.mark.docker]
IMAGE = "kilncr.azurecr.io/slipway/toolbox@sha256:" + "a" * 64
PERL = r"""
use strict; $| = 1;
print "run $ENV{AZUREML_RUN_ID} in ", (-e '/.dockerenv' ? 'a container' : 'no container'), "\n";
open my $out, '>', 'outputs/found.txt' or die $!;
print $out join(' ', $ENV{MODEL_NAME}, $ENV{AZUREML_ARM_WORKSPACE_NAME}, -s $ENV{REQUESTS_CA_BUNDLE} ? 'ca' : '');
close $out;
sleep($ARGV[0] // 0);
"""


@pytest.fixture(scope="module", autouse=True)
def place(root: Path, ml: MlClient, ml_standin: StandIn) -> None:
    """A cluster, and an environment with an image of the engine."""
    engine(ml_standin.world).offered[IMAGE] = server_image(root)
    ml.do(
        f"""
import time
from azureml.core import Environment, Experiment, ScriptRunConfig
from azureml.core.compute import AmlCompute, ComputeTarget
wanted = AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", max_nodes=1)
ComputeTarget.create(ws, "train-cluster", wanted).wait_for_completion()
os.makedirs("code", exist_ok=True)
open("code/run.pl", "w").write({PERL!r})
def submit(image, *command):
    environment = Environment("perl")
    environment.docker.base_image = image
    environment.python.user_managed_dependencies = True
    environment.environment_variables = {{"MODEL_NAME": "wood"}}
    return Experiment(ws, "grades").submit(ScriptRunConfig(
        source_directory="code", command=list(command), compute_target="train-cluster", environment=environment))
def wait(run, *statuses):
    while run.get_status() not in (statuses or ("Completed", "Failed", "Canceled")):
        time.sleep(0.2)
"""
    )


def test_the_command_runs_in_the_image(ml: MlClient) -> None:
    found = ml.do(
        f"""
run = submit({IMAGE!r}, "perl", "run.pl")
wait(run)
run.download_file("outputs/found.txt", "found.txt")
run.download_file("user_logs/std_log.txt", "log.txt")
result = [run.get_status(), open("found.txt").read(), open("log.txt").read(), run.id]
"""
    )
    assert found[0] == "Completed", found
    assert found[1] == "wood kiln-ws ca"
    assert found[2] == f"run {found[3]} in a container\n"


def test_cancelling_ends_the_container(ml: MlClient, ml_standin: StandIn) -> None:
    ml.do(
        f"""
run = submit({IMAGE!r}, "perl", "run.pl", "600")
wait(run, "Running")
time.sleep(1)
"""
    )

    def at_work() -> str:
        label = f"label={engine(ml_standin.world).label}"
        listed = subprocess.run(["docker", "ps", "-q", "--filter", label], capture_output=True)
        return listed.stdout.decode().strip()

    assert at_work()
    ml.do("run.cancel(); wait(run)")
    assert ml.do("result = run.get_status()") == "Canceled"
    end = time.monotonic() + 10
    while at_work() and time.monotonic() < end:
        time.sleep(0.2)
    assert not at_work()


def test_an_image_that_is_not_there_fails_the_run(ml: MlClient) -> None:
    found = ml.do(
        """
run = submit("kilncr.azurecr.io/slipway/toolbox@sha256:" + "b" * 64, "perl", "run.pl")
wait(run)
result = [run.get_status(), run.get_details()["error"]["error"]["message"]]
"""
    )
    assert found[0] == "Failed"
    assert "Failed to pull Docker image kilncr.azurecr.io/slipway/toolbox@sha256:bbb" in found[1]
