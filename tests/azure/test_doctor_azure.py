"""`make doctor` on Azure: every problem with the command that mends it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.azure.clusters import attach_cluster
from tests.azure.conftest import AzureClone
from tests.azure.standin import aci, providers, taken, vaults
from tests.azure.standin.access import only
from tests.azure.standin.aks import clusters
from tests.azure.standin.world import APP_OBJECT, SUBSCRIPTION

pytestmark = pytest.mark.azure

GROUP = "Kiln42-AML-RG"


def lines(printed: str, level: str) -> list[str]:
    """What doctor said of Azure on that level, without the level."""
    found = [
        line.partition(" ")[2].strip() for line in printed.splitlines() if line.startswith(level)
    ]
    return [line for line in found if line.startswith(("az", "azure"))]


def test_an_empty_subscription_is_well(azure_clone: AzureClone) -> None:
    printed = azure_clone.run("doctor")
    assert lines(printed, "problem") == []
    told = "\n".join(lines(printed, "ok"))
    assert "azure login: service principal" in told
    assert "azure providers: 8 are registered, and centralus has them" in told
    assert "azure roles: enough on the subscription" in told
    assert "storage account kiln42amlsa is free" in told
    assert "registry kiln42amlcr is free" in told
    assert "vault Kiln42-AML-KV is free" in told
    assert "azure container instances: centralus has groups of 1 CPU and 1.5 GB" in told
    assert "azure images: " in told
    assert lines(printed, "note") == [
        f"azure group: {GROUP} is not there; `make provision` makes it"
    ]
    # What only the local platform has is not asked for.
    for what in ("ports:", "registry:", "service:"):
        assert f" {what}" not in printed


def test_every_problem_is_told_at_once_each_with_its_mend(azure_clone: AzureClone) -> None:
    world = azure_clone.standin.world
    only(world, APP_OBJECT, "Contributor")
    providers.unregistered(world).add("microsoft.insights")
    taken.take(world, "Microsoft.Storage/storageAccounts", "kiln42amlsa")
    taken.take(world, "Microsoft.KeyVault/vaults", "Kiln42-AML-KV")
    azure_clone.save(AML_COMPUTE_CLUSTER_CPU_SKU="STANDARD_NONE_V9", ALLOW_HTTP="false")
    printed = azure_clone.run("doctor", code=2)
    told = "\n".join(lines(printed, "problem"))
    assert "Microsoft.Insights is not registered" in told
    assert "az provider register --namespace Microsoft.Insights --wait" in told
    assert "you may not Microsoft.Authorization/roleAssignments/write" in told
    assert (
        f'az role assignment create --assignee {APP_OBJECT} --role "Role Based Access Control '
        f'Administrator" --scope /subscriptions/{SUBSCRIPTION}, or set ROLE_ASSIGNMENTS=false'
    ) in told
    assert "AML_COMPUTE_CLUSTER_CPU_SKU=STANDARD_NONE_V9 in centralus is not offered" in told
    assert "storage account kiln42amlsa: " in told
    assert "vault Kiln42-AML-KV: " in told
    assert told.count("set another BASE_NAME") == 2
    assert "set one of STANDARD_" in told
    assert "azure https: TLS_CERT_NAME is not set, and DEPLOY_TARGET=aci has no HTTPS" in told


def test_where_it_shall_be_deployed_is_looked_at(
    azure_clone: AzureClone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aci, "MOST_CPU", 2)
    world = azure_clone.standin.world
    taken.take(world, "Microsoft.Web/sites", "kiln-app")
    azure_clone.save(DEPLOY_TARGET="webapp", WEBAPP_DEPLOYMENT_NAME="kiln-app", DEPLOY_CPU="4")
    told = "\n".join(lines(azure_clone.run("doctor", code=2), "problem"))
    assert "azure web app: kiln-app: Hostname 'kiln-app' already exists" in told
    assert "set another WEBAPP_DEPLOYMENT_NAME" in told
    assert "azure container instances: centralus has no groups of 4 CPU and 1.5 GB" in told
    assert "set DEPLOY_CPU to 2 and DEPLOY_MEMORY_GB to 16 at most, or another LOCATION" in told


def test_a_target_without_a_name_is_told(azure_clone: AzureClone) -> None:
    azure_clone.save(DEPLOY_TARGET="aks", AKS_COMPUTE_NAME="kiln-aks")
    (told,) = lines(azure_clone.run("doctor", code=2), "problem")
    assert "DEPLOY_TARGET=aks needs AKS_DEPLOYMENT_NAME" in told


def test_the_cluster_is_attached_and_runs(azure_clone: AzureClone) -> None:
    azure_clone.save(DEPLOY_TARGET="aks", AKS_COMPUTE_NAME="kiln-aks", AKS_DEPLOYMENT_NAME="kiln")
    azure_clone.run("provision")
    (told,) = lines(azure_clone.run("doctor", code=2), "problem")
    assert "AKS_COMPUTE_NAME=kiln-aks is no compute of the workspace kiln-ws" in told
    assert "attach an AKS cluster" in told
    place = azure_clone.records["provision"]
    cluster = attach_cluster(
        azure_clone.standin, place["workspace_id"], place["registry_id"], "kiln-aks"
    )
    assert "azure kubernetes: the cluster kubernetes runs" in azure_clone.run("doctor")
    clusters(azure_clone.standin.world)[cluster.lower()].stopped = True
    (told,) = lines(azure_clone.run("doctor", code=2), "problem")
    assert "the cluster kubernetes is stopped" in told
    assert "az aks start --resource-group clusters --name kubernetes" in told


def test_what_builds_the_images_and_what_is_missing_for_it(
    azure_clone: AzureClone, tmp_path: Path
) -> None:
    told = "\n".join(lines(azure_clone.run("doctor", SLIPWAY_ENGINE="none"), "ok"))
    assert "azure images: the registry builds them, from a base that " in told
    # A machine with az and nothing else.
    for name in ("az", "python", "bash", "sh", "env", "git", "make", "flock"):
        if found := shutil.which(name):
            (tmp_path / name).symlink_to(found)
    printed = azure_clone.run("doctor", code=2, SLIPWAY_ENGINE="none", PATH=str(tmp_path))
    (told,) = lines(printed, "problem")
    assert "azure images: skopeo is not installed" in told
    assert "apt-get install skopeo" in told


def test_who_may_not_use_the_key_is_told_before_deploying(azure_clone: AzureClone) -> None:
    azure_clone.run("provision")
    assert "azure roles: enough on the vault Kiln42-AML-KV" in azure_clone.run("doctor")
    # A colleague, who did not provision: owning everything is no right to the vault's secrets.
    only(azure_clone.standin.world, APP_OBJECT, "Owner")
    (told,) = lines(azure_clone.run("doctor", code=2), "problem")
    assert "azure roles: you may not Microsoft.KeyVault/vaults/secrets/getSecret/action" in told
    vault = azure_clone.records["provision"]["vault_id"]
    assert f'--role "Key Vault Secrets Officer" --scope {vault}' in told
    assert "run `make provision`, which gives that role" in told
    azure_clone.run("provision")
    assert lines(azure_clone.run("doctor"), "problem") == []


def test_a_region_that_has_nothing_is_named(azure_clone: AzureClone) -> None:
    printed = azure_clone.run("doctor", code=2, LOCATION="atlantis")
    told = "\n".join(lines(printed, "problem"))
    assert "LOCATION=atlantis has no Microsoft.MachineLearningServices/workspaces" in told
    assert "set LOCATION to one of centralus" in told


def test_another_region_than_that_of_what_was_made_is_named(azure_clone: AzureClone) -> None:
    azure_clone.run("provision")
    (told,) = lines(azure_clone.run("doctor", code=2, LOCATION="westeurope"), "problem")
    assert f"LOCATION=westeurope, and what was made in {GROUP} is in centralus" in told
    assert "set LOCATION=centralus, or another RESOURCE_GROUP" in told
    printed = azure_clone.run("provision", code=2, LOCATION="westeurope")
    assert "set LOCATION to where it is already" in printed


def test_nobody_signed_in_is_one_problem(azure_clone: AzureClone) -> None:
    azure_clone.save(SP_APP_SECRET="wrong-wrong-wrong")
    printed = azure_clone.run("doctor", code=2)
    (told,) = lines(printed, "problem")
    assert "AADSTS7000215" in told
    assert "SP_APP_SECRET" in told
    assert "wrong-wrong" not in printed


def test_what_was_deleted_and_is_in_the_way_is_named(azure_clone: AzureClone) -> None:
    azure_clone.run("provision")
    azure_clone.az("group", "delete", "--name", GROUP, "--yes")
    assert vaults.deleted(azure_clone.standin.world, "Kiln42-AML-KV") is not None
    printed = azure_clone.run("doctor", code=2)
    assert any("vault Kiln42-AML-KV was deleted" in line for line in lines(printed, "note"))
    (told,) = lines(printed, "problem")
    assert "workspace kiln-ws was deleted and still holds the name" in told
    assert "az rest --method delete --url" in told
    assert "forceToPurge=true" in told
    # The vault is another's: of another group.
    printed = azure_clone.run("doctor", code=2, RESOURCE_GROUP="another")
    told = "\n".join(lines(printed, "problem"))
    assert "az keyvault purge --name Kiln42-AML-KV --location centralus" in told
    # `destroy` frees both names.
    printed = azure_clone.run("destroy", CONFIRM=GROUP)
    assert "the workspace's name kiln-ws is free again" in printed
    assert "the vault's name Kiln42-AML-KV is free again" in printed
    azure_clone.run("provision")
