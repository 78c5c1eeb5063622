"""`PLATFORM=azure make all`: from an empty subscription to endpoints that answer, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure.clusters import GROUP, attach_cluster
from tests.azure.conftest import AzureClone, make_clone
from tests.azure.standin.standin import StandIn, has_docker
from tests.e2e.conftest import Clone

pytestmark = [pytest.mark.azure, pytest.mark.docker]

stages = Clone.stages
TO_IMAGE = ["provision", "data", "train", "evaluate", "register", "image"]


@pytest.fixture(scope="module")
def release(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureClone]:
    """One clone and one subscription for the story that the tests below tell in order."""
    folder = tmp_path_factory.mktemp("release")
    standin = StandIn(folder / "standin", root, docker=has_docker())
    clone = make_clone(root, folder / "my clone", standin)
    yield clone
    standin.close()


def versions(clone: AzureClone) -> list[int]:
    """The registered versions, as `register` last saw them."""
    return [clone.records["register"]["version"]]


def test_all_goes_from_an_empty_subscription_to_a_load_tested_endpoint(release: AzureClone) -> None:
    printed = release.make("all")
    assert stages(printed) == [*TO_IMAGE, "deploy", "smoke", "load", "report"]
    records = release.records
    assert records["evaluate"]["decision"] == "first"
    assert records["register"]["version"] == 1
    assert records["deploy-aci"]["kind"] == "aci"
    assert records["deploy-aci"]["url"].startswith("http://")
    assert records["smoke-aci"]["status"] == 200
    assert records["load-aci"]["requests"] > 10
    assert records["load-aci"]["failures"] == 0
    assert (release.folder / "report.html").exists()


def test_all_again_asks_azure_nothing(release: AzureClone) -> None:
    before = len(release.standin.world.calls)
    assert stages(release.make("all")) == []
    assert release.standin.world.calls.since(before) == []


def test_status_asks_and_names_what_serves(release: AzureClone) -> None:
    before = len(release.standin.world.calls)
    printed = release.make("status")
    assert release.records["deploy-aci"]["url"] in printed
    assert "healthy" in printed
    assert release.standin.world.calls.since(before)


def test_a_worse_candidate_is_kept_out(release: AzureClone) -> None:
    printed = release.make("all", PARAMS="alpha=1000000")
    assert "train" in stages(printed)
    assert release.records["evaluate"]["decision"] == "kept"
    assert release.records["register"]["registered"] is False
    assert versions(release) == [1]


def test_production_comes_after_qa_with_the_same_image(release: AzureClone) -> None:
    release.save(WEBAPP_DEPLOYMENT_NAME="kiln42-web")
    printed = release.make("all", DEPLOY_TARGET="webapp")
    assert stages(printed)[-4:] == ["deploy", "smoke", "load", "report"]
    records = release.records
    assert records["deploy-webapp"]["url"].startswith("https://")
    assert records["deploy-webapp"]["image_id"] == records["deploy-aci"]["image_id"]
    assert records["load-webapp"]["failures"] == 0


def test_kubernetes_serves_the_same_image(release: AzureClone) -> None:
    place = release.records["provision"]
    attach_cluster(release.standin, place["workspace_id"], place["registry_id"], "aks")
    release.save(AKS_COMPUTE_NAME="aks", AKS_DEPLOYMENT_NAME="kiln-aks")
    printed = release.make("all", DEPLOY_TARGET="aks")
    assert stages(printed)[-4:] == ["deploy", "smoke", "load", "report"]
    records = release.records
    assert records["deploy-aks"]["image_id"] == records["deploy-aci"]["image_id"]
    assert records["load-aks"]["failures"] == 0


def test_the_names_are_free_again_after_destroy(release: AzureClone) -> None:
    group = release.records["provision"]["group"]
    release.make("destroy", CONFIRM=group)
    assert [group["name"] for group in release.az("group", "list")] == [GROUP]
    printed = release.make("all")
    assert stages(printed) == [*TO_IMAGE, "deploy", "smoke", "load", "report"]
    assert release.records["register"]["version"] == 1


def test_no_secret_is_in_any_record_or_log(release: AzureClone) -> None:
    secrets = {release.standin.world.app_secret, *release.standin.world.keys.values()}
    secrets = {text for text in secrets if len(text) > 8}
    assert secrets
    for file in [
        *(release.path / "build").rglob("*"),
        release.standin.world.folder / "calls.jsonl",
    ]:
        if file.is_file() and file.stat().st_size < 5_000_000:
            content = file.read_bytes()
            found = [secret for secret in secrets if secret.encode() in content]
            assert not found, f"{file} holds a secret"
    assert json.loads((release.folder / "outcome.json").read_text())["outcome"] in ("done", "kept")
