"""Where everything is on Azure: what `provision` left, so that later verbs need not ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.errors import UsageError
from scripts.platforms.azure import names
from scripts.records import Records
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


def remembered(root: Path, settings: Settings) -> Place | None:
    """The place in the record of `provision`, if there is one.

    UsageError if that workspace is in another subscription or group: two of one name would share
    their records.
    """
    record = Records(folder(root, settings)).find("provision")
    if record is None:
        return None
    try:
        place = Place.of(record)
    except KeyError:
        return None
    wanted = {
        "SUBSCRIPTION_ID": (settings.require("SUBSCRIPTION_ID"), place.subscription),
        "RESOURCE_GROUP": (names.group(settings), place.group),
    }
    for name, (now, then) in wanted.items():
        if now.lower() != then.lower():
            raise UsageError(
                f"{name}={now}, but the records of WORKSPACE_NAME={settings.WORKSPACE_NAME} in "
                f"{folder(root, settings).relative_to(root)} are of {then}",
                f"set {name}={then}, or another WORKSPACE_NAME, or forget those records: make clean",
            )
    return place


def place(root: Path, settings: Settings, az: Az) -> Place:
    """Where everything is: from the record, else from the deployment, with one call.

    UsageError where nothing was provisioned.
    """
    found = remembered(root, settings)
    if found is not None:
        return found
    command = ("deployment", "group", "show", "--resource-group", names.group(settings))
    outputs = az.find(*command, "--name", DEPLOYMENT, "--query", "properties.outputs")
    try:
        if outputs is None:
            raise KeyError
        return from_outputs(settings, outputs)
    except KeyError:
        raise UsageError(
            f"nothing is provisioned in the resource group {names.group(settings)}",
            "run `make provision`",
        ) from None


def from_outputs(settings: Settings, outputs: Mapping[str, Any]) -> Place:
    """The place that the template's outputs tell of; KeyError names one that is missing."""
    values = {name: item["value"] for name, item in outputs.items() if isinstance(item, Mapping)}
    known = {field.name: values.get(_camel(field.name)) for field in fields(Place)}
    known |= {
        "subscription": settings.require("SUBSCRIPTION_ID"),
        "group": names.group(settings),
    }
    missing = [name for name, value in known.items() if value is None]
    if missing:
        raise KeyError(missing[0])
    return Place.of(known)


def _camel(name: str) -> str:
    """`vault_uri` as an output is called: vaultUri."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
