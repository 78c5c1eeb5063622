"""The service on App Service by its verbs: proven in a slot, swapped in, swapped back."""

from __future__ import annotations

import pytest

from tests.azure.conftest import AzureClone
from tests.azure.shipping import package, ship
from tests.azure.standin.resources import of_type
from tests.azure.standin.webapp import PLAN

pytestmark = [pytest.mark.azure, pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def clone(shared_clone: AzureClone) -> AzureClone:
    """A place, and version 1 in its registry; the tests below tell one story in order."""
    shared_clone.save(
        DEPLOY_TARGET="webapp",
        WEBAPP_DEPLOYMENT_NAME="kiln42-web",
        ALLOW_HTTP="false",
        GRACE_SECONDS="1",
        LOG_WAIT="30",
        LOAD_DURATION="1",
        LOAD_USERS="2",
    )
    shared_clone.run("provision")
    package(shared_clone, 1.0)
    ship(shared_clone)
    return shared_clone


def app_settings(clone: AzureClone) -> dict[str, str]:
    where = ("-g", "Kiln42-AML-RG", "-n", "kiln42-web")
    found = clone.az("webapp", "config", "appsettings", "list", *where)
    return {each["name"]: each["value"] for each in found}


def test_https_answers_and_the_key_stays_in_the_vault(clone: AzureClone) -> None:
    clone.run("deploy")
    assert clone.records["deploy-webapp"]["url"] == "https://kiln42-web.azurewebsites.net"
    clone.run("smoke")
    assert clone.records["smoke-webapp"]["log"]["request_id"]
    clone.run("load")
    assert clone.records["load-webapp"]["failures"] == 0
    assert app_settings(clone)["SCORING_KEY"].startswith("@Microsoft.KeyVault(")
    assert "serves already" in clone.run("deploy")


def test_one_that_crashes_never_serves(clone: AzureClone) -> None:
    clone.standin.world.faults.trouble("web app crashes")
    try:
        printed = clone.run("deploy", code=1, MAX_ROWS="99", SCORING_KEY="of-the-one-that-fails")
    finally:
        clone.standin.world.faults.clear()
    assert "deployment 1 (version 1) serves on" in printed
    assert "crashed: this is a test" in printed
    assert app_settings(clone)["MAX_ROWS"] == "100000"
    assert "healthy, webapp 1" in clone.run("status")
    clone.run("smoke")


def test_a_changed_key_reaches_a_plan_that_stays_as_large_as_it_was_made(clone: AzureClone) -> None:
    (plan,) = of_type(clone.standin.world, PLAN)
    plan["sku"]["capacity"] = 2
    clone.run("deploy", SCORING_KEY="another-key-of-the-service")
    clone.run("smoke")
    assert [each["sku"]["capacity"] for each in of_type(clone.standin.world, PLAN)] == [2]


def test_swapped_in_and_swapped_back(clone: AzureClone) -> None:
    clone.run("deploy", MAX_ROWS="99")
    assert clone.records["deploy-webapp"]["deployment"] == 4
    assert app_settings(clone)["MAX_ROWS"] == "99"
    assert "is in the slot staging already" in clone.run("rollback")
    assert app_settings(clone)["MAX_ROWS"] == "100000"
    clone.run("down")
    assert "nothing serves" in clone.run("status")
