"""`make destroy`: asks, removes, and the names are free again."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.errors import UsageError
from scripts.platforms.azure import deleted
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.checks import _provisioned
from scripts.platforms.azure.holdings import Holdings
from scripts.platforms.azure.names import TAG, names
from scripts.platforms.azure.refusals import explain
from scripts.settings import Settings
from tests.azure.conftest import AzureClone
from tests.azure.standin import vaults
from tests.azure.standin.faults import Fault
from tests.azure.standin.messages import Refused
from tests.azure.standin.world import SUBSCRIPTION

pytestmark = pytest.mark.azure

GROUP = "Kiln42-AML-RG"
BELOW = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/kiln42-aml-rg"


def left(clone: AzureClone) -> list[str]:
    """The ids in the group, and its own."""
    return [key for key in clone.standin.world.resources if key.startswith(BELOW)]


def test_it_asks_removes_and_the_same_names_are_made_again(azure_clone: AzureClone) -> None:
    world = azure_clone.standin.world
    azure_clone.run("provision")
    there = left(azure_clone)
    printed = azure_clone.run("destroy", code=2)
    assert "KeyVault/vaults Kiln42-AML-KV" in printed
    assert f"make destroy CONFIRM={GROUP}" in printed
    printed = azure_clone.run("destroy", code=2, CONFIRM="kiln")
    assert f"CONFIRM is kiln, and the resource group is {GROUP}: nothing was removed" in printed
    assert left(azure_clone) == there
    printed = azure_clone.run("destroy", CONFIRM=GROUP)
    assert f"the resource group {GROUP} is gone" in printed
    assert left(azure_clone) == []
    assert vaults.deleted(world, "Kiln42-AML-KV") is None
    assert not azure_clone.folder.exists()
    printed = azure_clone.run("destroy", CONFIRM=GROUP)
    assert f"there was no resource group {GROUP}" in printed
    azure_clone.run("provision")
    assert [key for key in there if key not in left(azure_clone) and "roleassign" not in key] == []


def test_half_of_it_gone_is_no_hindrance(azure_clone: AzureClone) -> None:
    azure_clone.run("provision")
    world = azure_clone.standin.world
    # Stopped after the workspace: a lock that somebody set, then taken away again.
    world.faults.add(
        Fault(
            "DELETE https://management.azure.com/subscriptions/[^/]+/resourcegroups/[^/]+[?]",
            Refused(409, "ScopeLocked", f"The scope '{BELOW}' cannot perform delete operation."),
        )
    )
    printed = azure_clone.run("destroy", code=2, CONFIRM=GROUP)
    assert "ScopeLocked" in printed
    assert "az lock list" in printed
    # What was recorded is not true of what half is gone.
    assert [path.name for path in azure_clone.folder.glob("*.json")] == ["outcome.json"]
    azure_clone.run("destroy", CONFIRM=GROUP)
    assert left(azure_clone) == []
    # Somebody deleted the group by hand: the vault is purged all the same, once that is confirmed.
    azure_clone.run("provision")
    azure_clone.az("group", "delete", "--name", GROUP, "--yes")
    assert vaults.deleted(world, "Kiln42-AML-KV") is not None
    printed = azure_clone.run("destroy", code=2)
    assert "this purges the deleted vault Kiln42-AML-KV" in printed
    assert vaults.deleted(world, "Kiln42-AML-KV") is not None
    printed = azure_clone.run("destroy", CONFIRM=GROUP)
    assert "the vault's name Kiln42-AML-KV is free again" in printed
    assert vaults.deleted(world, "Kiln42-AML-KV") is None


def delete_workspace(clone: AzureClone) -> str:
    """Delete the workspace as somebody does in the portal; the key it is then kept under."""
    workspace = str(clone.records["provision"]["workspace_id"])
    clone.az("resource", "delete", "--ids", workspace)
    return f"workspace/{workspace.lower()}"


def test_a_workspace_deleted_by_hand_frees_its_name_too(azure_clone: AzureClone) -> None:
    azure_clone.run("provision")
    delete_workspace(azure_clone)
    azure_clone.run("destroy", CONFIRM=GROUP)
    azure_clone.run("provision")


def test_what_is_not_ours_stays_and_is_named(azure_clone: AzureClone) -> None:
    azure_clone.run("provision")
    theirs = f"{BELOW}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/theirs"
    world = azure_clone.standin.world
    world.resources[theirs.lower()] = {
        "id": theirs,
        "name": "theirs",
        "type": "Microsoft.ManagedIdentity/userAssignedIdentities",
        "location": "centralus",
        "properties": {},
    }
    deleted = delete_workspace(azure_clone)
    assert deleted in world.deleted
    printed = azure_clone.run("destroy", CONFIRM=GROUP)
    assert "not made by Slipway, so these stay, and the group with them" in printed
    assert "ManagedIdentity/userAssignedIdentities theirs" in printed
    kept = [key for key in left(azure_clone) if "/providers/" in key]
    # The deployment is no resource but the group's history.
    assert [key for key in kept if "/deployments/" not in key] == [theirs.lower()]
    # The workspace was deleted by hand before: its name is free all the same.
    assert "this purges the deleted workspace" in printed
    assert deleted not in world.deleted
    # Another one's is not ours to purge, nor is a vault of our name.
    world.deleted[deleted] = {"id": deleted.removeprefix("workspace/"), "name": "wood", "tags": {}}
    assert vaults.deleted(world, "Kiln42-AML-KV") is None
    vault = f"{BELOW}/providers/Microsoft.KeyVault/vaults/Kiln42-AML-KV"
    vaults.leave_deleted(world, vault, "centralus", {TAG: "first"})
    printed = azure_clone.run("destroy", CONFIRM="not asked for")
    assert f"the group {GROUP} stays: nothing in it was made for kiln-ws" in printed
    assert "that Slipway did not make is left alone" in printed
    assert (
        "a deleted vault Kiln42-AML-KV made for WORKSPACE_NAME=first (centralus) is left" in printed
    )
    assert deleted in world.deleted
    printed = azure_clone.run("provision", code=2)
    assert "belongs to a deleted vault made for WORKSPACE_NAME=first" in printed
    assert "az keyvault purge --name Kiln42-AML-KV --location centralus" in printed


def test_a_vault_protected_from_purging_is_recovered(azure_clone: AzureClone) -> None:
    azure_clone.save(PURGE_PROTECTION="true")
    azure_clone.run("provision")
    vault = azure_clone.records["provision"]["vault_id"].lower()
    before = azure_clone.standin.world.resources[vault]
    printed = azure_clone.run("destroy", CONFIRM=GROUP)
    gone = vaults.deleted(azure_clone.standin.world, "Kiln42-AML-KV")
    assert gone is not None
    assert "is protected from purging: its name is free on 20" in printed
    assert "`make provision` recovers it" in printed
    assert "`make provision` recovers it" in azure_clone.run("doctor")
    printed = azure_clone.run("provision")
    assert "the deleted vault Kiln42-AML-KV is recovered" in printed
    assert azure_clone.standin.world.resources[vault]["id"] == before["id"]
    assert vaults.deleted(azure_clone.standin.world, "Kiln42-AML-KV") is None


def test_what_is_inside_of_ours_goes_with_it() -> None:
    """A training cluster bears no tag of ours, and is no reason to keep the group."""
    tags = {"slipway": "A"}
    workspace = {"id": "/s/g/Ws/A", "type": "workspaces", "name": "A", "tags": tags}
    cluster = {"id": "/s/g/ws/a/computes/c", "type": "computes", "name": "A/c"}
    other = {"id": "/s/g/ws/ab", "type": "workspaces", "name": "ab"}
    held = Holdings({"tags": tags}, [workspace, cluster, other], "A")
    assert (held.ours, held.others) == ([workspace, cluster], [other])
    assert Holdings(None, [other], "A").ours == []


def _resource(kind: str, name: str, **tags: str) -> dict[str, Any]:
    return {"id": f"/s/g/{kind}/{name}", "type": kind, "name": name, "tags": tags}


def test_what_another_workspace_in_the_group_has_is_not_ours() -> None:
    ours = [
        _resource("Microsoft.Storage/storageAccounts", "a", slipway="A"),
        _resource("Microsoft.Web/sites", "app", **{"slipway": "a", "slipway.last": "1"}),
        _resource("Microsoft.ContainerInstance/containerGroups", "c", **{"slipway.last": "1"}),
    ]
    theirs = [
        _resource("Microsoft.Storage/storageAccounts", "b", slipway="B"),
        _resource("Microsoft.Web/serverFarms", "b-plan", slipway="B"),
        _resource("Microsoft.Web/sites", "b", **{"slipway": "B", "slipway.last": "1"}),
        _resource("Microsoft.Storage/storageAccounts", "c", slipways="A"),
    ]
    held = Holdings({"tags": {"slipway": "A"}}, [*ours, *theirs], "A")
    assert (held.ours, held.others) == (ours, theirs)


def test_names_that_another_workspace_has_are_not_taken_over() -> None:
    """Two workspaces with one BASE_NAME: `destroy` of the second would delete what the first has."""
    settings = Settings.model_validate(
        {"PLATFORM": "azure", "BASE_NAME": "kiln", "WORKSPACE_NAME": "second"}
    )
    wanted = names(settings)
    kind = "Microsoft.Storage/storageAccounts"
    for tags in ({"slipway": "Second"}, {}):
        Holdings({}, [_resource(kind, "kilnamlsa", **tags)], "second").check_owner(wanted)
    theirs = Holdings({}, [_resource(kind.lower(), "KilnAmlSa", slipway="first")], "second")
    with pytest.raises(UsageError, match=r"kilnamlsa .* made for WORKSPACE_NAME=first") as caught:
        theirs.check_owner(wanted)
    assert caught.value.mend == "set another BASE_NAME, or WORKSPACE_NAME=first"
    assert _provisioned(settings, theirs, wanted).mend == caught.value.mend


def test_whoever_may_not_list_deleted_vaults_is_told_what_frees_the_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With roles on the group only: Azure has deleted vaults at the subscription."""
    settings = Settings.model_validate(
        {
            "PLATFORM": "azure",
            "SUBSCRIPTION_ID": SUBSCRIPTION,
            "LOCATION": "centralus",
            "BASE_NAME": "kiln",
            "WORKSPACE_NAME": "kiln",
        }
    )

    class Group(Az):
        def __call__(self, *arguments: str, **_: Any) -> Any:
            said = "ERROR: (AuthorizationFailed) The client 'app' does not have authorization"
            raise explain(" ".join(arguments), said, settings)

    assert deleted.vault(settings, Group(settings)) is None
    purge = "az keyvault purge --name kiln-AML-KV --location centralus --subscription"
    assert f"{purge} {SUBSCRIPTION}" in capsys.readouterr().err


def test_what_application_insights_makes_beside_a_component_goes_with_ours_only() -> None:
    component, theirs = "Microsoft.Insights/components", "their-AI"
    rules = "Microsoft.AlertsManagement/smartDetectorAlertRules"
    ours = [
        _resource(component, "A-AI", slipway="A"),
        _resource(rules, "Failure Anomalies - A-AI"),
    ]
    told = _resource("microsoft.insights/actionGroups", "Application Insights Smart Detection")
    others = [
        _resource("microsoft.insights/actionGroups", "on-call"),
        _resource(rules, "slow answers"),
    ]
    held = Holdings({"tags": {}}, [*ours, told, *others], "A")
    assert (held.ours, held.others) == ([*ours, told], others)
    # Somebody else's component is told by the same group.
    others += [_resource(component, theirs), _resource(rules, f"Failure Anomalies - {theirs}")]
    held = Holdings({"tags": {}}, [*ours, told, *others], "A")
    assert (held.ours, held.others) == (ours, [told, *others])
