"""What things are called on Azure: from BASE_NAME, as BASE_NAME-AML-RG and so on.

Azure's rules for names: https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.errors import UsageError
from scripts.settings import Settings

#: The tag of everything that `provision` made; its value is the workspace.
TAG = "slipway"
ARM = "https://management.azure.com/"
WORKSPACE_API = "2024-10-01"


@dataclass(frozen=True)
class Names:
    """The names; an existing workspace comes with a vault, a storage account and a registry of its own."""

    group: str
    workspace: str
    storage: str
    vault: str
    insights: str
    logs: str
    registry: str
    #: Of the deployed services, and of the training cluster.
    identity: str
    cluster_identity: str


def names(settings: Settings) -> Names:
    """The names that the settings give; UsageError where BASE_NAME is unset.

    Storage accounts (3 to 24 lower-case letters and digits) and registries (5 to 50) are unique in all
    of Azure, and so are vaults, whose names begin with a letter: BASE_NAME's form sees to all of it.
    """
    base = settings.require("BASE_NAME")
    return Names(
        group=group(settings),
        workspace=settings.WORKSPACE_NAME,
        storage=f"{base.lower()}amlsa",
        vault=f"{base}-AML-KV",
        insights=f"{base}-AML-AI",
        logs=f"{base}-AML-LA",
        registry=f"{base.lower()}amlcr",
        identity=f"{base}-AML-ID",
        cluster_identity=f"{base}-AML-CI",
    )


def experiment(settings: Settings) -> str:
    """EXPERIMENT_NAME, or MODEL_NAME; UsageError where Azure ML takes it for none.

    Source: azureml-core _base_sdk_common/common.py, _valid_experiment_name.
    """
    found = settings.EXPERIMENT_NAME or settings.require("MODEL_NAME")
    if "." in found:
        raise UsageError(
            f"an experiment of Azure ML cannot be called {found}: there is a dot in it",
            "set EXPERIMENT_NAME in .env to a name of letters, digits, _ and -",
        )
    return found


def group(settings: Settings) -> str:
    """RESOURCE_GROUP, or BASE_NAME-AML-RG."""
    if settings.RESOURCE_GROUP:
        return settings.RESOURCE_GROUP
    if settings.BASE_NAME is None:
        raise UsageError(
            "neither RESOURCE_GROUP nor BASE_NAME is set",
            "set BASE_NAME in .env: all names on Azure begin with it",
        )
    return f"{settings.BASE_NAME}-AML-RG"


def group_id(settings: Settings) -> str:
    """The resource group's id."""
    return f"/subscriptions/{settings.require('SUBSCRIPTION_ID')}/resourceGroups/{group(settings)}"


def owner(item: Mapping[str, Any]) -> str:
    """The workspace that what bears these `tags` was made for; "" if none is named."""
    return str((item.get("tags") or {}).get(TAG, ""))


def line(settings: Settings, words: str) -> str:
    """A command of az for a person, whose default subscription may be another."""
    return f"az {words} --subscription {settings.SUBSCRIPTION_ID}"


def purge(settings: Settings, vault: str, region: str) -> str:
    """The command that frees the name of a deleted vault."""
    return line(settings, f"keyvault purge --name {vault} --location {region}")


def workspace_id(settings: Settings) -> str:
    """The workspace's id."""
    kind = "Microsoft.MachineLearningServices/workspaces"
    return f"{group_id(settings)}/providers/{kind}/{settings.WORKSPACE_NAME}"


def purge_url(settings: Settings) -> str:
    """What a DELETE of removes the workspace for good, soft-deleted or not.

    Source: REST reference, Workspaces - Delete, forceToPurge.
    """
    where = f"{ARM.rstrip('/')}{workspace_id(settings)}"
    return f"{where}?api-version={WORKSPACE_API}&forceToPurge=true"


def purge_workspace(settings: Settings) -> str:
    """The command that frees the workspace's name."""
    return f'az rest --method delete --url "{purge_url(settings)}"'
