"""The service on Kubernetes by its verbs: rolled out, undone, rolled back, stopped."""

from __future__ import annotations

import pytest

from tests.azure.conftest import AzureClone
from tests.azure.injuries import After
from tests.azure.shipping import package, ship
from tests.azure.standin.access import grant
from tests.azure.standin.aks import clusters, make_cluster
from tests.azure.standin.faults import Fault
from tests.azure.standin.messages import Refused

pytestmark = [pytest.mark.azure, pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def clone(shared_clone: AzureClone) -> AzureClone:
    """A place with a cluster attached, and version 1 in its registry; the tests tell one story."""
    shared_clone.save(
        DEPLOY_TARGET="aks",
        AKS_COMPUTE_NAME="kube",
        AKS_DEPLOYMENT_NAME="kiln-aks",
        DEPLOY_CPU="0.5",
        DEPLOY_MEMORY_GB="0.5",
        GRACE_SECONDS="1",
        LOG_WAIT="30",
        LOAD_DURATION="1",
        LOAD_USERS="2",
    )
    shared_clone.run("provision")
    place, world = shared_clone.records["provision"], shared_clone.standin.world
    group = place["workspace_id"].partition("/providers/")[0]
    cluster = make_cluster(world, group, "kiln-cluster", "centralus")
    kubelet = clusters(world)[cluster.lower()].kubelet
    grant(world, kubelet.object_id, "AcrPull", place["registry_id"])
    attach = f"{place['workspace_id']}/computes/kube?api-version=2022-05-01"
    body = '{"location": "centralus", "properties": {"computeType": "AKS", "resourceId": "%s"}}'
    shared_clone.az(
        *("rest", "--method", "put", "--url", attach, "--body", body % cluster),
    )
    package(shared_clone, 1.0)
    ship(shared_clone)
    return shared_clone


def test_it_is_rolled_out_and_answers(clone: AzureClone) -> None:
    clone.run("deploy")
    record = clone.records["deploy-aks"]
    assert (record["kind"], record["deployment"]) == ("aks", 1)
    assert record["url"].endswith(".centralus.cloudapp.azure.com")
    clone.run("smoke")
    assert clone.records["smoke-aks"]["log"]["request_id"]
    clone.run("load")
    assert clone.records["load-aks"]["failures"] == 0
    assert "serves already" in clone.run("deploy")


def test_a_rollout_that_fails_is_undone(clone: AzureClone) -> None:
    clone.standin.world.faults.trouble("pod crashes")
    try:
        printed = clone.run("deploy", code=1, MAX_ROWS="99", SCORING_KEY="of-the-one-that-fails")
    finally:
        clone.standin.world.faults.clear()
    assert "deployment 1 (version 1) serves on" in printed
    assert "CrashLoopBackOff" in printed
    assert "healthy, aks 1" in clone.run("status")
    clone.run("smoke")


def test_rolled_back_and_stopped(clone: AzureClone) -> None:
    clone.run("deploy", MAX_ROWS="99")
    assert clone.records["deploy-aks"]["deployment"] == 3
    clone.run("rollback")
    assert clone.records["deploy-aks"]["deployment"] == 4
    clone.run("down")
    assert "nothing serves" in clone.run("status")
    clone.run("deploy", FORCE="1")
    clone.run("smoke")


def test_a_rollout_that_is_not_heard_of_again_is_undone(clone: AzureClone) -> None:
    """The cluster does what the third command says, after two looks, and nobody can be told that it did."""
    faults = clone.standin.world.faults
    lost = Fault("GET .*/commandResults/", Refused(400, "BadRequest", "The result was lost."))
    faults.add(After("POST .*/runCommand", times=2, call=lambda: faults.add(lost) and None))
    try:
        printed = clone.run("deploy", code=1, MAX_ROWS="98")
    finally:
        faults.clear()
    assert lost.hits == 1
    assert "could not be started: az aks command invoke: BadRequest" in printed
    assert "undoing the rollout" in printed
    assert "deployment 5 (version 1) serves on" in printed
    assert "healthy, aks 5" in clone.run("status")
