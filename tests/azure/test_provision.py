"""`make provision` and `make what-if`, with the real az against the stand-in."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests import records_schema
from tests.azure.conftest import AzureClone
from tests.azure.standin import operations, providers, taken
from tests.azure.standin.access import grant, has_role, only
from tests.azure.standin.deployments import HALF
from tests.azure.standin.faults import Fault
from tests.azure.standin.messages import Refused
from tests.azure.standin.resources import of_type
from tests.azure.standin.storage import QUOTA
from tests.azure.standin.world import APP_OBJECT, SUBSCRIPTION

pytestmark = pytest.mark.azure

GROUP = "Kiln42-AML-RG"
BELOW = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
NAMES = {
    "Microsoft.Storage/storageAccounts": "kiln42amlsa",
    "Microsoft.KeyVault/vaults": "Kiln42-AML-KV",
    "Microsoft.Insights/components": "Kiln42-AML-AI",
    "Microsoft.OperationalInsights/workspaces": "Kiln42-AML-LA",
    "Microsoft.ContainerRegistry/registries": "kiln42amlcr",
    "Microsoft.MachineLearningServices/workspaces": "kiln-ws",
}


def made(clone: AzureClone) -> dict[str, list[str]]:
    """The names of what is in the group, by type."""
    world = clone.standin.world
    return {kind: [str(item["name"]) for item in of_type(world, kind, BELOW)] for kind in NAMES}


def writes(clone: AzureClone, mark: int) -> list[str]:
    """The calls since the mark that change something, sign-in and questions left out."""
    return [
        call.line
        for call in clone.standin.world.calls.since(mark)
        if call.method in ("PUT", "DELETE", "PATCH") and call.host == "management.azure.com"
    ]


def test_everything_is_made_once_and_told_in_the_record(azure_clone: AzureClone) -> None:
    world = azure_clone.standin.world
    # After a `destroy` that was interrupted Azure goes on deleting.
    going = {"id": BELOW, "name": GROUP, "type": "Microsoft.Resources/resourceGroups"}
    state = {"location": "westeurope", "properties": {"provisioningState": "Deleting"}}
    world.resources[BELOW.lower()] = {**going, **state}
    operations.begin(world, 8, lambda: world.resources.pop(BELOW.lower()))
    printed = azure_clone.run("what_if")
    assert f"waiting until Azure has deleted the resource group {GROUP}" in printed
    assert "+ create        resource group Kiln42-AML-RG in centralus" in printed
    assert made(azure_clone)["Microsoft.KeyVault/vaults"] == []

    printed = azure_clone.run("provision")
    assert "kiln-ws in Kiln42-AML-RG (centralus) is ready" in printed
    assert made(azure_clone) == {kind: [name] for kind, name in NAMES.items()}
    assert world.resources[BELOW.lower()]["tags"] == {"slipway": "kiln-ws"}
    record = azure_clone.records["provision"]
    records_schema.validate("provision", record)
    assert (record["group"], record["region"]) == (GROUP, "centralus")
    assert record["registry_server"] == "kiln42amlcr.azurecr.io"
    assert record["vault_uri"] == "https://kiln42-aml-kv.vault.azure.net/"
    assert record["roles_to_assign"] == []
    assert has_role(world, record["identity_principal"], "AcrPull", record["registry_id"])
    assert has_role(world, APP_OBJECT, "Key Vault Secrets Officer", record["vault_id"])
    text = (azure_clone.folder / "provision.json").read_text()
    for secret in (world.app_secret, *world.keys.values()):
        assert secret not in text

    assert "nothing would change" in azure_clone.run("what_if")
    stamp = (azure_clone.folder / "provision.json").stat().st_mtime_ns
    before = sorted(world.resources)
    mark = len(world.calls)
    azure_clone.run("provision")
    assert [line for line in writes(azure_clone, mark) if "/deployments/" not in line] == []
    assert sorted(world.resources) == before
    assert (azure_clone.folder / "provision.json").stat().st_mtime_ns == stamp

    # What a workspace has is not made another's: destroying that one would delete it.
    printed = azure_clone.run("provision", code=2, WORKSPACE_NAME="another-ws")
    assert "was made for WORKSPACE_NAME=kiln-ws, and this is another-ws" in printed
    assert sorted(world.resources) == before

    # Only the record's owner may write it: the same workspace's name elsewhere is refused.
    printed = azure_clone.run("provision", code=2, RESOURCE_GROUP="another-group")
    assert "RESOURCE_GROUP=another-group, but the records of WORKSPACE_NAME=kiln-ws" in printed
    printed = azure_clone.run("provision", code=2, RESOURCE_GROUP="another-group")
    assert "are of Kiln42-AML-RG" in printed
    assert "/subscriptions/.../another" not in json.dumps(list(world.resources))
    # Nor is it taken from elsewhere when a setting is wrong.
    elsewhere = "99999999-9999-4999-8999-999999999999"
    printed = azure_clone.run("provision", code=2, SUBSCRIPTION_ID=elsewhere)
    assert f"SUBSCRIPTION_ID={elsewhere}, but the records" in printed
    azure_clone.run("provision")
    assert azure_clone.records["provision"]["group"] == GROUP


def test_what_differs_is_shown_and_changed_back(azure_clone: AzureClone) -> None:
    azure_clone.run("provision")
    world = azure_clone.standin.world
    registry = world.resources[azure_clone.records["provision"]["registry_id"].lower()]
    registry["properties"]["adminUserEnabled"] = True
    printed = azure_clone.run("what_if")
    assert "~ change        Microsoft.ContainerRegistry/registries kiln42amlcr" in printed
    assert "properties.adminUserEnabled: True -> False" in printed
    assert "1 to change" in printed
    azure_clone.run("provision")
    registry = world.resources[azure_clone.records["provision"]["registry_id"].lower()]
    assert registry["properties"]["adminUserEnabled"] is False


def _trouble(name: str) -> Callable[[Any], None]:
    return lambda world: world.faults.trouble(name, 1)


def _unregistered(world: Any) -> None:
    providers.unregistered(world).add("microsoft.keyvault")


def _storage_taken(world: Any) -> None:
    taken.take(world, "Microsoft.Storage/storageAccounts", "kiln42amlsa")


def _contributor(world: Any) -> None:
    only(world, APP_OBJECT, "Contributor")


def _reader(world: Any) -> None:
    only(world, APP_OBJECT, "Reader")


FAULTS: dict[str, tuple[Callable[[Any], None], dict[str, str], int, str, str]] = {
    "quota": (_trouble(QUOTA), {}, 1, "MaxStorageAccountsCount", "set another LOCATION"),
    "provider": (
        _unregistered,
        {},
        2,
        "MissingSubscriptionRegistration",
        "az provider register --namespace Microsoft.KeyVault --wait",
    ),
    "name": (
        _storage_taken,
        {},
        2,
        "StorageAccountAlreadyTaken",
        "set another BASE_NAME than Kiln42",
    ),
    "no owner": (_contributor, {}, 2, "Authorization", "set ROLE_ASSIGNMENTS=false"),
    "reader": (
        _reader,
        {},
        2,
        "AuthorizationFailed",
        "az role assignment create --assignee 33333333",
    ),
    "region": (
        lambda world: None,
        {"LOCATION": "atlantis"},
        2,
        "LocationNotAvailable",
        "set another LOCATION than atlantis",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_with_its_mend_and_leaves_nothing_half_said(
    azure_clone: AzureClone, fault: str
) -> None:
    import re

    arrange, environ, code, said, mend = FAULTS[fault]
    world = azure_clone.standin.world
    arrange(world)
    printed = azure_clone.run("provision", code=code, **environ)
    error = printed[printed.index("error:") :]
    assert re.search(said, error, re.IGNORECASE), error
    assert mend in error
    assert len(error.strip().splitlines()) == 2, error
    assert "provision" not in azure_clone.records
    failed = azure_clone.records["provision.failed"]
    records_schema.validate("provision", failed)
    assert (failed["code"], failed["group"]) == (code, GROUP)
    # Mended, the same verb goes on where it was.
    world.faults.clear()
    providers.unregistered(world).discard("microsoft.keyvault")
    world.rooms.pop("taken", None)
    only(world, APP_OBJECT, "Owner")
    azure_clone.run("provision")
    assert made(azure_clone) == {kind: [name] for kind, name in NAMES.items()}


def test_a_deployment_that_stops_half_way_is_gone_on_with(azure_clone: AzureClone) -> None:
    azure_clone.standin.world.faults.trouble(HALF, 1)
    printed = azure_clone.run("provision")
    assert "InternalServerError" in printed
    assert "trying again" in printed
    assert made(azure_clone) == {kind: [name] for kind, name in NAMES.items()}


def test_an_interrupted_call_says_that_azure_goes_on(azure_clone: AzureClone) -> None:
    child = azure_clone.start("provision")
    assert child.stdout is not None
    seen = ""
    while "deploying arm/main.json" not in seen and (line := child.stdout.readline()):
        seen += line
    child.send_signal(signal.SIGINT)
    rest, _ = child.communicate(timeout=60)
    assert child.returncode == 130, seen + rest
    assert "Azure goes on with what it began; `make provision` takes it from there" in rest
    azure_clone.run("provision")
    assert made(azure_clone) == {kind: [name] for kind, name in NAMES.items()}


def test_a_busy_azure_is_asked_again(azure_clone: AzureClone) -> None:
    faults = azure_clone.standin.world.faults
    busy = Refused(429, "TooManyRequests", "Too many requests.", headers={"Retry-After": "1"})
    faults.add(Fault("PUT https://management.azure.com/.*resourcegroups", busy, times=2))
    faults.add(Fault("GET https://management.azure.com/.*/resources", breaks=True, times=1))
    assert "is ready" in azure_clone.run("provision")


def test_two_at_once_both_end_well(azure_clone: AzureClone) -> None:
    azure_clone.run("login")
    first, second = azure_clone.start("provision"), azure_clone.start("provision")
    for child in (first, second):
        printed, _ = child.communicate(timeout=200)
        assert child.returncode == 0, printed
    assert made(azure_clone) == {kind: [name] for kind, name in NAMES.items()}


def test_with_contributor_only_an_owner_is_given_the_commands(azure_clone: AzureClone) -> None:
    world = azure_clone.standin.world
    only(world, APP_OBJECT, "Contributor")
    azure_clone.save(ROLE_ASSIGNMENTS="false")
    printed = azure_clone.run("provision")
    assert "is ready but for roles" in printed
    commands = azure_clone.records["provision"]["roles_to_assign"]
    assert len(commands) == 9
    for command in commands:
        assert command in printed
        assert command.startswith("az role assignment create --assignee-object-id ")
    printed = azure_clone.run("doctor", code=2)
    for command in commands:
        assert command in printed
    # An Owner runs them as they stand.
    grant(world, APP_OBJECT, "Owner", f"/subscriptions/{SUBSCRIPTION}")
    for command in commands:
        azure_clone.az(*shlex.split(command)[1:])
    only_contributor = [
        item
        for item in of_type(world, "Microsoft.Authorization/roleAssignments")
        if item["properties"]["principalId"] == APP_OBJECT
        and item["properties"]["scope"] == f"/subscriptions/{SUBSCRIPTION}"
        and item["properties"]["roleDefinitionId"].endswith("8e3af657-a8ff-443c-a75c-2fe8c4bcb635")
    ]
    for item in only_contributor:
        del world.resources[item["id"].lower()]
    assert "azure role assignments: all 9 are made" in azure_clone.run("doctor")
    azure_clone.run("provision")
    assert azure_clone.records["provision"]["roles_to_assign"] == []


def test_an_existing_workspace_is_used_with_what_it_has(azure_clone: AzureClone) -> None:
    azure_clone.run("provision")
    world = azure_clone.standin.world
    # As somebody else's: without our tags, its things named otherwise than ours would be.
    for item in world.resources.values():
        item.pop("tags", None)
    azure_clone.run("provision", code=2, BASE_NAME="Other")
    azure_clone.save(BASE_NAME="Other", RESOURCE_GROUP=GROUP)
    printed = azure_clone.run("provision")
    assert "the workspace kiln-ws is there and is used as it is" in printed
    record = azure_clone.records["provision"]
    records_schema.validate("provision", record)
    assert record["existing_workspace"] is True
    assert record["registry"] == "kiln42amlcr"
    assert record["vault"] == "Kiln42-AML-KV"
    assert made(azure_clone) == {kind: [name] for kind, name in NAMES.items()}
    assert "slipway" not in (world.resources[BELOW.lower()].get("tags") or {})
    assert record["identity_id"].endswith("/Other-AML-ID")
    assert has_role(world, record["identity_principal"], "AcrPull", record["registry_id"])
    # Destroying takes back what was added, and nothing else.
    printed = azure_clone.run("destroy", CONFIRM=GROUP)
    assert "the workspace kiln-ws was there before: it stays" in printed
    assert made(azure_clone) == {kind: [name] for kind, name in NAMES.items()}
    assert record["identity_id"].lower() not in world.resources


def test_roles_of_a_lost_identity_and_those_made_by_hand_are_made_anew(
    azure_clone: AzureClone,
) -> None:
    azure_clone.run("provision", ROLE_ASSIGNMENTS="false")
    world = azure_clone.standin.world
    record = azure_clone.records["provision"]
    assert len(record["roles_to_assign"]) == 9
    azure_clone.az(*shlex.split(record["roles_to_assign"][0])[1:])
    printed = azure_clone.run("provision")
    assert "removing 1 role assignments that are made anew" in printed
    azure_clone.az("resource", "delete", "--ids", record["identity_id"])
    azure_clone.az("resource", "delete", "--ids", record["workspace_id"])
    purge = f"https://management.azure.com{record['workspace_id']}"
    azure_clone.az(
        *("rest", "--method", "delete"),
        *("--url", f"{purge}?api-version=2024-10-01&forceToPurge=true"),
    )
    printed = azure_clone.run("provision")
    assert "removing 5 role assignments that are made anew" in printed
    record = azure_clone.records["provision"]
    assert has_role(world, record["identity_principal"], "AcrPull", record["registry_id"])
    assert has_role(
        world, record["workspace_principal"], "Key Vault Administrator", record["vault_id"]
    )


def test_a_wrong_subscription_is_not_remembered(azure_clone: AzureClone) -> None:
    elsewhere = "99999999-9999-4999-8999-999999999999"
    printed = azure_clone.run("provision", code=2, SUBSCRIPTION_ID=elsewhere)
    assert f"SUBSCRIPTION_ID={elsewhere} is not among the subscriptions" in printed
    azure_clone.run("provision")
    assert azure_clone.records["provision"]["group"] == GROUP
