"""A platform that must be provisioned, and that is deployed to once for each target."""

from __future__ import annotations

import pytest

from tests.make.conftest import STAGES, Clone
from tests.make.test_settings import read_by

AZURE = {"PLATFORM": "azure", "WORKSPACE_NAME": "ws", "ACI_DEPLOYMENT_NAME": "qa"}
TO_IMAGE = ["provision", *STAGES[: STAGES.index("deploy")]]


def test_all_provisions_first_and_records_carry_the_target(clone: Clone) -> None:
    environ = {**AZURE, "DEPLOY_TARGET": "aci"}
    assert clone.run("all", **environ) == [*TO_IMAGE, "deploy", "smoke", "load", "report"]
    records = clone.path / "build/azure/ws"
    assert {"provision.json", "deploy-aci.json", "smoke-aci.json", "load-aci.json"} <= {
        file.name for file in records.iterdir()
    }
    assert clone.run("all", **environ) == []


def test_production_comes_after_qa_was_deployed_and_asked(clone: Clone) -> None:
    environ = {**AZURE, "DEPLOY_TARGET": "aks"}
    served = ["deploy", "smoke", "deploy", "smoke", "load"]
    assert clone.run("all", **environ) == [*TO_IMAGE, *served, "report"]
    records = clone.path / "build/azure/ws"
    assert (records / "deploy-aci.json").exists()
    assert (records / "deploy-aks.json").exists()
    assert not (records / "load-aci.json").exists()
    assert clone.run("all", **environ) == []


def test_production_waits_while_qa_fails(clone: Clone) -> None:
    clone.fails("smoke", 3)
    clone.make("all", ok=False, **{**AZURE, "DEPLOY_TARGET": "webapp"})
    assert clone.calls()[: len(TO_IMAGE) + 2] == [*TO_IMAGE, "deploy", "smoke"]
    assert not (clone.path / "build/azure/ws/deploy-webapp.json").exists()


def test_without_a_name_for_qa_there_is_none(clone: Clone) -> None:
    environ = {**AZURE, "ACI_DEPLOYMENT_NAME": "", "DEPLOY_TARGET": "webapp"}
    assert clone.run("smoke", **environ) == [*TO_IMAGE, "deploy", "smoke"]


def test_one_target_does_not_undo_another(clone: Clone) -> None:
    clone.run("all", **{**AZURE, "DEPLOY_TARGET": "aks"})
    assert clone.run("deploy", "smoke", **{**AZURE, "DEPLOY_TARGET": "aci"}) == []


def test_force_is_for_the_verbs_own_target(clone: Clone) -> None:
    environ = {**AZURE, "DEPLOY_TARGET": "aks"}
    clone.run("all", **environ)
    clone.make("deploy", FORCE="1", **environ)
    assert [line.split()[2:4] for line in clone.lines()] == [["scripts.deploy", "FORCE=1"]]


def test_a_changed_template_reruns_what_deploys_it(clone: Clone) -> None:
    environ = {**AZURE, "DEPLOY_TARGET": "aci"}
    clone.write("arm/aci.json", "{}")
    clone.run("all", **environ)
    clone.touch("arm/aci.json")
    assert clone.run("all", **environ) == ["deploy"]
    clone.touch("arm/main.json")
    assert clone.run("all", **environ) == ["provision"]


def test_provision_itself_always_asks(clone: Clone) -> None:
    environ = {**AZURE, "DEPLOY_TARGET": "aci"}
    clone.run("all", **environ)
    assert clone.run("provision", **environ) == ["provision"]
    assert clone.run("provision", "all", **environ) == ["provision"]
    assert clone.run("all", **environ) == []


def test_a_misspelt_target_is_refused(clone: Clone) -> None:
    refused = clone.make("all", ok=False, **{**AZURE, "DEPLOY_TARGET": "acii"})
    assert "DEPLOY_TARGET=acii" in refused.stderr
    assert "aci, aks or webapp" in refused.stderr


AZURES = [pair for pair in read_by(platform="azure") if pair[1] and pair not in read_by()]


@pytest.mark.parametrize(("name", "stages"), AZURES)
def test_a_changed_setting_of_azure_reruns_its_readers(
    clone: Clone, name: str, stages: list[str]
) -> None:
    environ = {**AZURE, "DEPLOY_TARGET": "aci"}
    clone.run("all", **environ)
    assert clone.run("all", **environ | {name: "7"}) == stages


@pytest.mark.parametrize("verb", ["what-if", "destroy", "run-pipeline"])
def test_verbs_of_the_platform_leave_the_stages_alone(clone: Clone, verb: str) -> None:
    assert clone.run(verb, **AZURE) == [verb.replace("-", "_")]
