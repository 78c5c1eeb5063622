"""`destroy`: what provision and deploy made goes, and its names are free again."""

from __future__ import annotations

import sys
import time

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure import holdings, names
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.holdings import Holdings, in_the_way, shown
from scripts.platforms.azure.refusals import AzureError
from scripts.platforms.azure.template import ARM, WORKSPACE_API, WORKSPACES
from scripts.settings import Settings

#: How long a workspace may take to go, and between two looks, in seconds.
GOING, LOOK = 900.0, 5.0
#: What has to go before what it uses: the position in which types are deleted.
FIRST = (
    "microsoft.machinelearningservices/workspaces",
    "microsoft.containerinstance/containergroups",
    "microsoft.web/sites",
    "microsoft.web/serverfarms",
    "microsoft.insights/components",
)


def destroy(settings: Settings, az: Az, confirmation: str | None) -> str:
    """Remove it all; says what went. UsageError if it was not confirmed."""
    found = holdings.look(settings, az)
    group = names.group(settings)
    vault = names.names(settings).vault
    whole = found.made_by_us and not found.others
    _tell(settings, found, whole)
    if found.group is not None and (whole or found.ours):
        _confirm(group, confirmation)
        _remove(settings, az, found, whole)
    told = [_what_went(found, group, whole)]
    if found.group is None and (purged := _purge_without_group(settings, az)):
        told.append(purged)
    if purged := _purge_vault(settings, az, vault):
        told.append(purged)
    return "; ".join(told)


def _what_went(found: Holdings, group: str, whole: bool) -> str:
    if found.group is None:
        return f"there was no resource group {group}"
    if whole:
        return f"the resource group {group} is gone, with {len(found.resources)} resources"
    return f"{len(found.ours)} resources of {group} are gone; the group stays"


def _tell(settings: Settings, found: Holdings, whole: bool) -> None:
    """Print what will go and what will stay."""
    if found.group is None:
        return
    group = found.group["name"]
    if whole:
        console.step(f"this removes the resource group {group} with all that is in it:")
    elif found.ours:
        console.step(f"this removes from the resource group {group}:")
    for item in found.ours:
        print(f"    {shown(item)}", flush=True)
    if whole and not found.ours:
        print("    (nothing)", flush=True)
    if found.has_existing_workspace:
        console.step(
            f"the workspace {settings.WORKSPACE_NAME} was there before: it stays, with the models, runs "
            "and clusters in it"
        )
    stays = [item for item in found.others if item is not found.workspace]
    if stays:
        console.step("not made by Slipway, so these stay, and the group with them:")
        for item in stays:
            print(f"    {shown(item)}", flush=True)


def _confirm(group: str, confirmation: str | None) -> None:
    """UsageError unless CONFIRM, or what is typed now, is the group's name."""
    asked = confirmation is None
    if asked:
        if not sys.stdin.isatty():
            raise UsageError(
                "destroy asks for the resource group's name, and nobody can be asked here",
                f"make destroy CONFIRM={group}",
            )
        try:
            confirmation = input(f"  type the resource group's name, {group}, to go on: ").strip()
        except EOFError:
            confirmation = ""
    if confirmation != group:
        raise UsageError(
            f"{'what was typed' if asked else 'CONFIRM'} is {confirmation or 'nothing'}, and the resource "
            f"group is {group}: nothing was removed",
            f"make destroy CONFIRM={group}",
        )


def _remove(settings: Settings, az: Az, found: Holdings, whole: bool) -> None:
    workspace = found.workspace
    if workspace is not None and not found.has_existing_workspace:
        _purge_workspace(settings, az)
    group = names.group(settings)
    if whole:
        try:
            az(
                *("group", "delete", "--name", group, "--yes"),
                doing=f"deleting the resource group {group} (some minutes)",
            )
        except AzureError as error:
            if not error.missing:
                raise
        return
    ours = [item for item in found.ours if str(item["type"]).lower() != WORKSPACES.lower()]

    def position(kind: str) -> int:
        return FIRST.index(kind) if kind in FIRST else len(FIRST)

    for item in sorted(ours, key=lambda item: position(str(item["type"]).lower())):
        az.find("resource", "delete", "--ids", str(item["id"]), doing=f"deleting {shown(item)}")


def _purge_workspace(settings: Settings, az: Az) -> None:
    """Delete the workspace for good: a soft-deleted one would hold its name for two weeks.

    Source: REST reference, Workspaces - Delete, forceToPurge.
    """
    resource_id = names.workspace_id(settings)
    url = f"{ARM.rstrip('/')}{resource_id}?api-version={WORKSPACE_API}&forceToPurge=true"
    az.find(
        *("rest", "--method", "delete", "--url", url),
        doing=f"deleting the workspace {settings.WORKSPACE_NAME} for good",
    )
    limit = time.monotonic() + GOING
    while _holds_its_name(settings, az):
        if time.monotonic() > limit:
            raise SlipwayError(
                f"the workspace {settings.WORKSPACE_NAME} is still there after {GOING:.0f} s",
                "run `make destroy` again; if it stays, look at the workspace in the Azure portal",
            )
        time.sleep(LOOK)


def _holds_its_name(settings: Settings, az: Az) -> bool:
    """Whether the workspace is there, or soft-deleted."""
    ours = names.workspace_id(settings).lower()
    return any(str(item["id"]).lower() == ours for item in in_the_way(settings, az))


def _purge_without_group(settings: Settings, az: Az) -> str:
    """Purge the workspace that a group deleted by hand has left: only in a group can it be reached."""
    if not _holds_its_name(settings, az):
        return ""
    group = names.group(settings)
    where = ("--location", settings.LOCATION, "--tags", f"{names.TAG}={settings.WORKSPACE_NAME}")
    az(
        *("group", "create", "--name", group, *where),
        doing=f"making the group {group} for a moment: its workspace is only soft-deleted",
    )
    _purge_workspace(settings, az)
    az("group", "delete", "--name", group, "--yes")
    return f"the workspace's name {settings.WORKSPACE_NAME} is free again"


def _purge_vault(settings: Settings, az: Az, name: str) -> str:
    """Free the vault's name where Azure lets us; says since or from when it is free, "" if it was."""
    found = holdings.deleted_vault(settings, az, name)
    if found is None:
        return ""
    properties = found["properties"]
    if (
        str(properties["vaultId"]).lower().partition("/providers/")[0]
        != names.group_id(settings).lower()
    ):
        return f"a deleted vault {name} of another group ({properties['vaultId']}) is left alone"
    if properties.get("purgeProtectionEnabled"):
        free = str(properties["scheduledPurgeDate"])[:10]
        return (
            f"the vault {name} is protected from purging: its name is free on {free}, and until then "
            "`make provision` recovers it"
        )
    az(
        *("keyvault", "purge", "--name", name, "--location", str(properties["location"])),
        doing=f"purging the deleted vault {name}",
    )
    return f"the vault's name {name} is free again"
