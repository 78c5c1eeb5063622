"""Where everything is on Azure: what `provision` left, so that later verbs need not ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.errors import UsageError
from scripts.platforms.azure import login, names
from scripts.records import Record, Records
from scripts.settings import Settings

if TYPE_CHECKING:
    from scripts.platforms.azure.az import Az

#: The deployment of arm/main.json, in the resource group.
DEPLOYMENT = "slipway"


@dataclass(frozen=True)
class Place:
    """Names and ids of what there is; ids are ARM's, principals are object ids in the directory."""

    subscription: str
    tenant: str
    group: str
    region: str
    workspace: str
    workspace_id: str
    #: Of the workspace's own managed identity.
    workspace_principal: str
    registry: str
    registry_id: str
    #: Where images are pushed to and pulled from, a host name.
    registry_server: str
    storage: str
    storage_id: str
    vault: str
    vault_id: str
    #: https://<vault>.vault.azure.net/
    vault_uri: str
    insights_id: str
    #: The user-assigned managed identity that deployments pull the image and read the key with.
    identity_id: str
    identity_principal: str
    identity_client: str
    #: That of the training cluster.
    cluster_identity_id: str
    cluster_identity_principal: str
    cluster_identity_client: str

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Place:
        """From a record's fields; KeyError names one that is not there."""
        return cls(**{field.name: str(values[field.name]) for field in fields(cls)})

    def fields(self) -> dict[str, str]:
        """As a record holds it."""
        return asdict(self)


def folder(root: Path, settings: Settings) -> Path:
    """Where the workspace's records lie."""
    return root / "build" / "azure" / settings.WORKSPACE_NAME


def record(root: Path, settings: Settings) -> Record:
    """What is known of where everything is, empty if nothing; scripts.errors keeps it after a failure too."""
    records = Records(folder(root, settings))
    return records.find("provision") or records.find_failed("provision") or {}


def remembered(root: Path, settings: Settings) -> Place | None:
    """The place in the record of `provision`, if there is one.

    UsageError if that workspace is in another subscription or group: two of one name would share
    their records.
    """
    known = record(root, settings)
    wanted = {
        "SUBSCRIPTION_ID": (settings.require("SUBSCRIPTION_ID"), known.get("subscription")),
        "RESOURCE_GROUP": (names.group(settings), known.get("group")),
    }
    for name, (now, then) in wanted.items():
        if then is not None and now.lower() != str(then).lower():
            raise UsageError(
                f"{name}={now}, but the records of WORKSPACE_NAME={settings.WORKSPACE_NAME} in "
                f"{folder(root, settings).relative_to(root)} are of {then}",
                f"set {name}={then}, or another WORKSPACE_NAME, or forget those records: make clean",
                figures=figures(known),
            )
    try:
        return Place.of(known)
    except KeyError:
        return None


def figures(known: Mapping[str, Any]) -> dict[str, Any]:
    """What a failed record keeps of where it was."""
    return {field.name: known[field.name] for field in fields(Place) if field.name in known}


def place(root: Path, settings: Settings, az: Az) -> Place:
    """Where everything is: from the record, else from the deployment, with one call or a few.

    UsageError where nothing was provisioned.
    """
    found = remembered(root, settings)
    if found is not None:
        return found
    command = ("deployment", "group", "show", "--resource-group", names.group(settings))
    shown = az.find(*command, "--name", DEPLOYMENT, doing="looking where everything is on Azure")
    outputs = (shown or {}).get("properties", {}).get("outputs")
    if not outputs:
        raise UsageError(
            f"nothing is provisioned in the resource group {names.group(settings)}",
            "run `make provision`",
        )
    return gather(settings, az, outputs)


def gather(settings: Settings, az: Az, outputs: Mapping[str, Any]) -> Place:
    """The place that the template's outputs tell of, an existing workspace being asked for the rest."""
    known = {name: item["value"] for name, item in outputs.items() if item.get("value")}
    if "workspacePrincipalId" not in known:
        known |= of_workspace(settings, az)
    account = login.account(settings) or {}
    return Place(
        subscription=settings.require("SUBSCRIPTION_ID"),
        tenant=str(settings.TENANT_ID or account.get("tenantId", "")),
        group=names.group(settings),
        region=str(known.get("location") or settings.LOCATION),
        workspace=settings.WORKSPACE_NAME,
        workspace_id=known["workspaceId"],
        workspace_principal=known["workspacePrincipalId"],
        registry=last(known["registryId"]),
        registry_id=known["registryId"],
        registry_server=known["registryServer"],
        storage=last(known["storageId"]),
        storage_id=known["storageId"],
        vault=last(known["vaultId"]),
        vault_id=known["vaultId"],
        vault_uri=known["vaultUri"],
        insights_id=known["insightsId"],
        identity_id=known["identityId"],
        identity_principal=known["identityPrincipalId"],
        identity_client=known["identityClientId"],
        cluster_identity_id=known["clusterIdentityId"],
        cluster_identity_principal=known["clusterIdentityPrincipalId"],
        cluster_identity_client=known["clusterIdentityClientId"],
    )


def of_workspace(settings: Settings, az: Az) -> dict[str, str]:
    """What belongs to a workspace that was there, named as the template's outputs are.

    UsageError if it has no registry yet.
    """
    wanted = names.workspace_id(settings)
    shown = az("resource", "show", "--ids", wanted, doing="asking the workspace what it uses")
    properties = shown["properties"]
    registry = properties.get("containerRegistry")
    if not registry:
        name = names.names(settings).registry
        group = names.group(settings)
        create = names.line(
            settings, f"acr create --resource-group {group} --name {name} --sku Basic"
        )
        raise UsageError(
            f"the workspace {settings.WORKSPACE_NAME} has no container registry",
            f"give it one: {create}; az resource "
            f"update --ids {wanted} --set properties.containerRegistry={group_id_of(wanted)}"
            f"/providers/Microsoft.ContainerRegistry/registries/{name}",
        )
    principal = (shown.get("identity") or {}).get("principalId")
    server = az("resource", "show", "--ids", registry, "--query", "properties.loginServer")
    return {
        "workspacePrincipalId": principal or "none",
        "location": shown["location"],
        "storageId": properties["storageAccount"],
        "vaultId": properties["keyVault"],
        "vaultUri": f"https://{last(properties['keyVault']).lower()}.vault.azure.net/",
        "insightsId": properties.get("applicationInsights") or "none",
        "registryId": registry,
        "registryServer": server,
    }


def last(resource_id: str) -> str:
    """The name at the end of an id."""
    return resource_id.rpartition("/")[2]


def group_id_of(resource_id: str) -> str:
    """The id of the group that a resource is in."""
    return resource_id.partition("/providers/")[0]
