"""Resource Manager of the stand-in, as az sees it: groups, deployments, roles, what is soft-deleted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.azure.cli import Cli, image_archive
from tests.azure.standin.access import grant, only
from tests.azure.standin.deployments import HALF
from tests.azure.standin.directory import directory
from tests.azure.standin.faults import Fault
from tests.azure.standin.generic import FULL
from tests.azure.standin.messages import Refused
from tests.azure.standin.providers import unregistered
from tests.azure.standin.standin import StandIn
from tests.azure.standin.storage import ACCOUNT, QUOTA
from tests.azure.standin.taken import take
from tests.azure.standin.world import APP_OBJECT, SUBSCRIPTION

pytestmark = pytest.mark.azure
ARM = "https://management.azure.com"
GROUP = "Kiln42-AML-RG"
SCOPE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
WORKSPACE = f"{SCOPE}/providers/Microsoft.MachineLearningServices/workspaces/kiln-ws"
NAMES = {
    "storageName": "kiln42amlsa",
    "vaultName": "Kiln42-AML-KV",
    "logsName": "Kiln42-AML-LA",
    "insightsName": "Kiln42-AML-AI",
    "registryName": "kiln42amlcr",
    "workspaceName": "kiln-ws",
    "identityName": "kiln42-id",
    "clusterIdentityName": "kiln42-cl",
    "operatorId": APP_OBJECT,
}


@pytest.fixture(scope="module")
def signed_in(shared_standin: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(shared_standin, tmp_path_factory.mktemp("arm") / "home")


@pytest.fixture
def cli(signed_in: Cli) -> Iterator[Cli]:
    """az with a group of ours, and after the test nothing of what it left."""
    world = signed_in.standin.world
    signed_in.az("group", "create", "-n", GROUP, "-l", "westeurope")
    yield signed_in
    with world.lock:
        world.faults.clear()
        unregistered(world).clear()
        world.rooms["taken"] = set()
        world.deleted.clear()
        for key in list(world.resources):
            world.resources.pop(key)
        only(world, APP_OBJECT, "Owner")
        directory(world).lifetime = 3600


def deploy(cli: Cli, root: Path, verb: str = "create", **parameters: str) -> tuple[str, ...]:
    """The words of `az deployment group VERB` with arm/main.json."""
    given = [f"{name}={value}" for name, value in {**NAMES, **parameters}.items()]
    return (
        *("deployment", "group", verb, "-g", GROUP, "--name", "slipway"),
        *("--template-file", str(root / "arm" / "main.json"), "--parameters", *given),
    )


def small(cli: Cli, tmp_path: Path, **changed: Any) -> tuple[str, ...]:
    """A template with one storage account, `changed`."""
    account = {
        "type": ACCOUNT,
        "apiVersion": "2023-05-01",
        "name": "kiln42amlsa",
        "location": "westeurope",
        "kind": "StorageV2",
        "sku": {"name": "Standard_LRS"},
        **changed,
    }
    schema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
    path = tmp_path / "template.json"
    path.write_text(
        json.dumps({"$schema": schema, "contentVersion": "1.0.0.0", "resources": [account]})
    )
    return ("-g", GROUP, "--name", "small", "--template-file", str(path))


def rest(cli: Cli, method: str, path: str, body: Any = None) -> tuple[str, ...]:
    given = ("--body", json.dumps(body)) if body is not None else ()
    return ("rest", "--method", method, "--url", f"{ARM}{path}", *given)


def changes(answer: Any) -> dict[str, str]:
    return {each["resourceId"].rpartition("/")[2]: each["changeType"] for each in answer["changes"]}


def test_what_if_create_and_again(cli: Cli, root: Path) -> None:
    """A template is validated, previewed, made and, made again, changes nothing."""
    shown = cli.az(*deploy(cli, root, "validate"))
    assert shown["properties"]["provisioningState"] == "Succeeded"
    preview = cli.az(*deploy(cli, root, "what-if"), "--no-pretty-print")
    assert set(changes(preview).values()) == {"Create"}
    assert len(preview["changes"]) == 18
    assert cli.az("resource", "list", "-g", GROUP) == []

    made = cli.az(*deploy(cli, root))["properties"]
    outputs = {name: each["value"] for name, each in made["outputs"].items()}
    assert outputs["vaultUri"] == "https://kiln42-aml-kv.vault.azure.net/"
    assert outputs["registryServer"] == "kiln42amlcr.azurecr.io"
    assert len(cli.az("resource", "list", "-g", GROUP)) == 8
    assert cli.az("resource", "show", "--ids", WORKSPACE)["properties"]["discoveryUrl"] == (
        "https://westeurope.api.azureml.ms/discovery"
    )
    held = cli.az(
        *("role", "assignment", "list", "--scope", outputs["registryId"]),
        *("--query", "[].[principalId, roleDefinitionName]"),
    )
    assert sorted(held) == sorted(
        [
            [outputs["identityPrincipalId"], "AcrPull"],
            [outputs["clusterIdentityPrincipalId"], "AcrPull"],
            [outputs["workspacePrincipalId"], "AcrPull"],
            [APP_OBJECT, "AcrPush"],
        ]
    )

    again = cli.az(*deploy(cli, root, "what-if"), "--no-pretty-print")
    assert set(changes(again).values()) == {"NoChange"}
    mended = cli.az(*deploy(cli, root))["properties"]["outputs"]
    assert {name: each["value"] for name, each in mended.items()} == outputs
    assert cli.az("deployment", "group", "show", "-g", GROUP, "-n", "slipway")["properties"][
        "outputs"
    ]


def test_what_if_tells_property_changes_and_what_is_left_alone(cli: Cli, root: Path) -> None:
    cli.az("identity", "create", "-g", GROUP, "-n", "a-stranger")
    cli.az(*deploy(cli, root, roleAssignments="false"))
    preview = cli.az(
        *deploy(
            cli, root, "what-if", roleAssignments="false", purgeProtection="true", logsDays="60"
        ),
        "--no-pretty-print",
    )
    told = changes(preview)
    assert told["a-stranger"] == "Ignore"
    assert {name for name, what in told.items() if what == "Modify"} == {
        "Kiln42-AML-KV",
        "Kiln42-AML-LA",
    }
    deltas = {
        delta["path"]: (delta["before"], delta["after"])
        for each in preview["changes"]
        for delta in each["delta"] or []
    }
    assert deltas["properties.retentionInDays"] == (30, 60)


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({"name": "No-Good"}, "AccountNameInvalid", "numbers and lower-case letters only"),
        ({"apiVersion": "2001-01-01"}, "NoRegisteredProviderFound", "2001-01-01"),
        ({"type": "Microsoft.Nothing/x"}, "InvalidResourceType", "Microsoft.Nothing/x"),
        ({"location": "moon"}, "LocationNotAvailableForResourceType", "moon"),
        (
            {"properties": {"allowBlobPublicAcces": False}},
            "InvalidRequestContent",
            "Could not find member 'allowBlobPublicAcces'",
        ),
        ({"sku": {"name": "Golden"}}, "InvalidRequestContent", "Golden"),
        ({"name": "[uniqueString('a')]"}, "InvalidTemplate", "'uniqueString' is not valid"),
        ({"dependsOn": ["nobody"]}, "InvalidTemplate", "'nobody' is not defined"),
        ({"copy": {"name": "a", "count": 2}}, "InvalidRequestContent", "'copy'"),
    ],
)
def test_what_azure_refuses_is_refused_before_anything_is_made(
    cli: Cli, tmp_path: Path, changed: dict[str, Any], code: str, says: str
) -> None:
    told = cli.az_fails("deployment", "group", "create", *small(cli, tmp_path, **changed))
    assert code in told
    assert says in told
    assert not any(ACCOUNT.lower() in key for key in cli.standin.world.resources)


def test_a_what_if_says_what_is_wrong(cli: Cli, tmp_path: Path) -> None:
    told = cli.az_fails("deployment", "group", "what-if", *small(cli, tmp_path, name="No-Good"))
    assert "numbers and lower-case letters only" in told


def test_direct_calls_are_as_strict(cli: Cli) -> None:
    path = f"{SCOPE}/providers/{ACCOUNT}/kiln42amlsa"
    body: dict[str, Any] = {"location": "westeurope", "kind": "StorageV2"}
    assert "sku" in cli.az_fails(*rest(cli, "put", f"{path}?api-version=2023-05-01", body))
    body["sku"] = {"name": "Standard_LRS"}
    assert "MissingApiVersionParameter" in cli.az_fails(*rest(cli, "put", path, body))
    assert "2001-01-01" in cli.az_fails(*rest(cli, "put", f"{path}?api-version=2001-01-01", body))
    cli.az(*rest(cli, "put", f"{path}?api-version=2023-05-01", body))
    body["location"] = "northeurope"
    told = cli.az_fails(*rest(cli, "put", f"{path}?api-version=2023-05-01", body))
    assert "already exists in location 'westeurope'" in told
    assert "StandInHasNoSuchRoute" in cli.az_fails(*rest(cli, "get", "/nothing/of/the/kind"))


def test_a_contributor_makes_all_but_role_assignments(cli: Cli, root: Path) -> None:
    only(cli.standin.world, APP_OBJECT, "Contributor")
    told = cli.az_fails(*deploy(cli, root))
    assert "Microsoft.Authorization/roleAssignments/write" in told
    assert APP_OBJECT in told
    assert cli.az("resource", "list", "-g", GROUP) == []
    cli.az(*deploy(cli, root, roleAssignments="false"))
    assert len(cli.az("resource", "list", "-g", GROUP)) == 8
    assign = (
        *("role", "assignment", "create", "--assignee-object-id", APP_OBJECT, "--role", "AcrPush"),
        *("--assignee-principal-type", "ServicePrincipal", "--scope", SCOPE),
    )
    assert "AuthorizationFailed" in cli.az_fails(*assign)
    only(cli.standin.world, APP_OBJECT, "Owner")
    cli.az(*assign)
    # Once more is no error to az, which reads RoleAssignmentExists.
    cli.az(*assign)


def test_a_reader_changes_nothing(cli: Cli) -> None:
    only(cli.standin.world, APP_OBJECT, "Reader")
    told = cli.az_fails("group", "delete", "-n", GROUP, "-y")
    assert "Microsoft.Resources/subscriptions/resourceGroups/delete" in told
    assert cli.az("group", "exists", "-n", GROUP) is True


def test_a_deployment_that_fails_half_way_leaves_what_it_made(cli: Cli, root: Path) -> None:
    cli.standin.world.faults.trouble(HALF, 1)
    told = cli.az_fails(*deploy(cli, root))
    assert "DeploymentFailed" in told
    left = len(cli.az("resource", "list", "-g", GROUP))
    assert 0 < left < 9
    steps = cli.az("deployment", "operation", "group", "list", "-g", GROUP, "--name", "slipway")
    states = {each["properties"]["provisioningState"] for each in steps}
    assert states == {"Succeeded", "Failed"}
    cli.az(*deploy(cli, root))
    assert len(cli.az("resource", "list", "-g", GROUP)) == 8


def test_quota_capacity_and_names_of_others(cli: Cli, root: Path, tmp_path: Path) -> None:
    world = cli.standin.world
    take(world, ACCOUNT, "kiln42amlsa")
    assert "StorageAccountAlreadyTaken" in cli.az_fails(*deploy(cli, root))
    answer = cli.az("storage", "account", "check-name", "-n", "kiln42amlsa")
    assert (answer["nameAvailable"], answer["reason"]) == (False, "AlreadyExists")
    world.rooms["taken"].clear()
    world.faults.trouble(QUOTA, 1)
    told = cli.az_fails("deployment", "group", "create", *small(cli, tmp_path))
    assert "MaxStorageAccountsCountPerSubscriptionExceeded" in told
    world.faults.trouble(FULL, 1)
    told = cli.az_fails("deployment", "group", "create", *small(cli, tmp_path))
    assert "SkuNotAvailable" in told
    cli.az("deployment", "group", "create", *small(cli, tmp_path))


def test_providers_have_to_be_registered(cli: Cli, tmp_path: Path) -> None:
    unregistered(cli.standin.world).add("microsoft.storage")
    shown = cli.az("provider", "show", "-n", "Microsoft.Storage")
    assert shown["registrationState"] == "NotRegistered"
    told = cli.az_fails("deployment", "group", "create", *small(cli, tmp_path))
    assert "MissingSubscriptionRegistration" in told
    cli.az("provider", "register", "-n", "Microsoft.Storage", "--wait")
    cli.az("deployment", "group", "create", *small(cli, tmp_path))


def test_a_deleted_vault_comes_back_or_is_purged(cli: Cli, root: Path) -> None:
    cli.az(*deploy(cli, root, roleAssignments="false"))
    cli.az("keyvault", "delete", "-n", NAMES["vaultName"])
    told = cli.az_fails(*deploy(cli, root, roleAssignments="false"))
    assert "already exists in deleted state" in told
    cli.az(*deploy(cli, root, roleAssignments="false", vaultCreateMode="recover"))
    assert cli.az("keyvault", "list-deleted", "--resource-type", "vault") == []
    cli.az("keyvault", "delete", "-n", NAMES["vaultName"])
    cli.az("keyvault", "purge", "-n", NAMES["vaultName"], "-l", "westeurope")
    cli.az(*deploy(cli, root, roleAssignments="false", purgeProtection="true"))
    cli.az("keyvault", "delete", "-n", NAMES["vaultName"])
    (deleted,) = cli.az("keyvault", "list-deleted", "--resource-type", "vault")
    assert deleted["properties"]["purgeProtectionEnabled"] is True
    told = cli.az_fails("keyvault", "purge", "-n", NAMES["vaultName"], "-l", "westeurope")
    assert "'DeletedVaultPurge' is not allowed" in told
    cli.az("keyvault", "recover", "-n", NAMES["vaultName"])


def test_a_deleted_workspace_holds_its_name_until_it_is_purged(cli: Cli, root: Path) -> None:
    cli.az(*deploy(cli, root, roleAssignments="false"))
    cli.az("resource", "delete", "--ids", WORKSPACE)
    told = cli.az_fails(*deploy(cli, root, roleAssignments="false"))
    assert "Soft-deleted workspace exists. Please purge or recover it" in told
    purge = rest(cli, "delete", f"{WORKSPACE}?api-version=2024-10-01&forceToPurge=true")
    cli.az(*purge)
    until(lambda: not cli.standin.world.deleted)
    cli.az(*deploy(cli, root, roleAssignments="false"))


def test_what_lost_its_identity_is_told_by_its_role_assignments(cli: Cli, root: Path) -> None:
    """Azure keeps the assignments of a principal that is gone, and lets nobody give them to another."""
    identity = f"{SCOPE}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/kiln42-id"
    cli.az(*deploy(cli, root))
    cli.az("resource", "delete", "--ids", identity)
    assert "RoleAssignmentUpdateNotPermitted" in cli.az_fails(*deploy(cli, root))
    stale = cli.az(
        *("deployment", "operation", "group", "list", "-g", GROUP, "--name", "slipway"),
        *("--query", "[?properties.provisioningState=='Failed'].properties.targetResource.id"),
    )
    assert len(stale) == 2
    cli.az("role", "assignment", "delete", "--ids", *stale)
    cli.az(*deploy(cli, root))


IMAGE = "kiln42amlcr.azurecr.io/slipway/scoring@sha256:" + "a" * 64
SETTINGS = {"image": IMAGE, "settings": [{"name": "SCORING_KEY", "value": "hidden-in-here"}]}


def pushed(cli: Cli, tmp_path: Path) -> str:
    """A small image in a registry of the group, by digest."""
    cli.az("acr", "create", "-g", GROUP, "-n", NAMES["registryName"], "--sku", "Basic")
    auth = cli.authfile(cli.az("acr", "login", "-n", NAMES["registryName"], "--expose-token"))
    place = f"{NAMES['registryName']}.azurecr.io/slipway/tiny"
    archive = image_archive(tmp_path / "tiny.tar")
    words = ("skopeo", "copy", "--authfile", auth, "--digestfile", str(tmp_path / "digest"))
    cli.run(*words, f"docker-archive:{archive}", f"docker://{place}:1")
    return f"{place}@{(tmp_path / 'digest').read_text().strip()}"


@pytest.mark.parametrize(
    ("file", "given", "makes"),
    [
        (
            "aci.json",
            {
                "name": "kiln-aci",
                "hostLabel": "kiln-aci-42",
                "server": "kiln42amlcr.azurecr.io",
                "environment": {"variables": [{"name": "K", "secureValue": "hidden-in-here"}]},
            },
            {"kiln-aci"},
        ),
        (
            "webapp.json",
            {"name": "kiln-web-42", "workspace": "kiln-ws", "first": True, "candidate": SETTINGS},
            {"kiln-web-42-plan", "kiln-web-42", "staging"},
        ),
    ],
)
def test_templates_of_services_are_valid_and_previewed(
    cli: Cli, root: Path, tmp_path: Path, file: str, given: dict[str, Any], makes: set[str]
) -> None:
    identity = cli.az("identity", "create", "-g", GROUP, "-n", "kiln42-id")
    given = {**given, "identity": identity["id"]}
    if file == "webapp.json":
        given["identityClient"] = identity["clientId"]
    else:
        # Container Instances looks for the image before anything else.
        given["image"] = pushed(cli, tmp_path)
        grant(cli.standin.world, identity["principalId"], "AcrPull", SCOPE)
    parameters = tmp_path / "parameters.json"
    parameters.write_text(json.dumps({name: {"value": value} for name, value in given.items()}))
    words = (
        *("-g", GROUP, "--name", "service", "--template-file", str(root / "arm" / file)),
        *("--parameters", f"@{parameters}"),
    )
    shown = cli.az("deployment", "group", "validate", *words)
    assert shown["properties"]["provisioningState"] == "Succeeded"
    assert "hidden-in-here" not in json.dumps(shown)
    preview = cli.az("deployment", "group", "what-if", *words, "--no-pretty-print")
    assert {name for name, what in changes(preview).items() if what == "Create"} == makes
    assert "hidden-in-here" not in json.dumps(preview)


def until(done: Any) -> None:
    limit = time.monotonic() + 10
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_deleting_a_group_takes_all_and_a_lock_forbids_it(cli: Cli, root: Path) -> None:
    cli.az(*deploy(cli, root))
    world = cli.standin.world
    principals = len(directory(world).principals)
    cli.az("lock", "create", "-n", "keep", "-g", GROUP, "--lock-type", "CanNotDelete")
    assert "ScopeLocked" in cli.az_fails("group", "delete", "-n", GROUP, "-y")
    cli.az("lock", "delete", "-n", "keep", "-g", GROUP)
    cli.az("group", "delete", "-n", GROUP, "-y")
    assert cli.az("group", "exists", "-n", GROUP) is False
    assert not [key for key in world.resources if key.startswith(SCOPE.lower())]
    assert len(directory(world).principals) == principals - 3
    assert {each.partition("/")[0] for each in world.deleted} == {"vault", "workspace"}


def test_an_expired_token_and_a_throttled_call(cli: Cli) -> None:
    faults = cli.standin.world.faults
    expired = Refused(401, "ExpiredAuthenticationToken", "The access token expiry UTC time ...")
    faults.add(Fault("GET .*/resourcegroups/", expired))
    assert "ExpiredAuthenticationToken" in cli.az_fails("group", "show", "-n", GROUP)
    slow = Refused(429, "TooManyRequests", "Slow down.", headers={"Retry-After": "1"})
    faults.clear()
    hit = faults.add(Fault("GET .*/resourcegroups/", slow))
    assert cli.az("group", "show", "-n", GROUP)["name"] == GROUP
    assert hit.hits == 1


def test_names_are_those_of_azure(cli: Cli) -> None:
    assert "InvalidResourceGroup" in cli.az_fails(
        "group", "create", "-n", "a" * 91, "-l", "westeurope"
    )
    assert "already exists in location 'westeurope'" in cli.az_fails(
        "group", "create", "-n", GROUP, "-l", "northeurope"
    )
    told = cli.az_fails("identity", "create", "-g", GROUP, "-n", "ab")
    assert "not valid for a user assigned identity" in told
