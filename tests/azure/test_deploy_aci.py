"""The service on Container Instances: deployed, proven, replaced, put back, stopped; by its verbs."""

from __future__ import annotations

import pytest

from tests import records_schema
from tests.azure.conftest import AzureClone
from tests.azure.injuries import lease_held, until_put_back
from tests.azure.shipping import package, ship

pytestmark = [pytest.mark.azure, pytest.mark.docker]


@pytest.fixture(scope="module")
def clone(shared_clone: AzureClone) -> AzureClone:
    """A place, and version 1 in its registry; the tests below tell one story in order."""
    shared_clone.save(GRACE_SECONDS="1", LOG_WAIT="30", LOAD_DURATION="1", LOAD_USERS="2")
    shared_clone.run("provision")
    package(shared_clone, 1.0)
    assert "pushing it to kiln42amlcr.azurecr.io/wood:1-" in ship(shared_clone)
    return shared_clone


def test_a_first_deployment_answers_and_is_logged(clone: AzureClone) -> None:
    printed = clone.run("deploy")
    record = clone.records["deploy-aci"]
    records_schema.validate("deploy", record)
    assert (record["kind"], record["deployment"], record["version"]) == ("aci", 1, 1)
    assert record["url"].startswith("http://kiln-aci-")
    assert record["url"].endswith(".centralus.azurecontainer.io:5001")
    assert record["url"] in printed
    clone.run("smoke")
    smoke = clone.records["smoke-aci"]
    assert smoke["status"] == 200
    assert smoke["log"]["request_id"] == smoke["request_id"]
    clone.run("load")
    assert clone.records["load-aci"]["failures"] == 0


def test_the_same_again_changes_nothing(clone: AzureClone) -> None:
    before, record = len(clone.standin.world.calls), clone.records["deploy-aci"]
    assert "serves already" in clone.run("deploy")
    assert clone.records["deploy-aci"] == record
    calls = clone.standin.world.calls.since(before)
    assert not [call for call in calls if call.method == "PUT"]


def test_status_and_logs(clone: AzureClone) -> None:
    printed = clone.run("status")
    assert "healthy, aci 1" in printed
    assert '"request_id"' in clone.run("logs")


def test_one_that_crashes_is_replaced_by_the_one_before(clone: AzureClone) -> None:
    until_put_back(clone.standin.world.faults, "aci container crashes", tries=1)
    try:
        printed = clone.run("deploy", code=1, MAX_ROWS="99", SCORING_KEY="of-the-one-that-fails")
    finally:
        clone.standin.world.faults.clear()
    assert "ended with code 137; deployment 1 (version 1) was put back and serves" in printed
    assert "The end of its log:" in printed
    assert "healthy, aci 1" in clone.run("status")
    clone.run("smoke")


def test_settings_are_deployed_rolled_back_and_stopped(clone: AzureClone) -> None:
    clone.run("deploy", MAX_ROWS="99")
    assert clone.records["deploy-aci"]["deployment"] == 3
    lease_held(clone.standin.world.faults)
    printed = clone.run("rollback")
    clone.standin.world.faults.clear()
    assert "another machine is changing kiln-aci; waiting for it" in printed
    assert (clone.records["deploy-aci"]["deployment"], clone.records["deploy-aci"]["previous"]) == (
        4,
        None,
    )
    clone.run("down")
    assert "nothing serves" in clone.run("status")
    assert "nothing is deployed" in clone.run("smoke", code=2)


def test_plain_http_is_refused_unless_allowed(clone: AzureClone) -> None:
    printed = clone.run("deploy", code=2, FORCE="1", ALLOW_HTTP="false")
    assert "TLS_CERT_NAME is not set" in printed
    assert "ALLOW_HTTP=true" in printed
