"""`destroy`: what provision and deploy made goes, and its names are free again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure import deleted, holdings, names
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.deleted import DeletedVault
from scripts.platforms.azure.holdings import Holdings, shown
from scripts.platforms.azure.refusals import AzureError
from scripts.platforms.azure.template import WORKSPACES
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


def destroy(settings: Settings, az: Az, confirmation: str | None, begun: Callable[[], None]) -> str:
    """Remove it all; says what went. UsageError if it was not confirmed.

    `begun` is called when it was, before anything goes.
    """
    found, group = holdings.look(settings, az), names.group(settings)
    whole = found.made_by_us and not found.others
    goes = found.group is not None and (whole or bool(found.ours))
    _tell(settings, found, whole)
    # What somebody deleted by hand can still be recovered: purging it is asked for, too.
    workspace = not whole and found.workspace is None and _is_left(settings, az, found)
    vault = None if goes else deleted.vault(settings, az)
    purged = vault is not None and _stays(settings, vault) is None
    if workspace:
        console.step(f"this purges the deleted workspace {settings.WORKSPACE_NAME}")
    if vault is not None and purged:
        console.step(f"this purges the deleted vault {vault.name}, with the secrets in it")
    if goes or workspace or purged:
        _confirm(group, confirmation)
    begun()
    if goes:
        _remove(settings, az, found, whole)
        vault = deleted.vault(settings, az)
    told = [_what_went(found, group, whole)]
    if workspace:
        told.append(_purge_left(settings, az, found))
    if vault is not None:
        told.append(_purge_vault(settings, az, vault))
    return "; ".join(told)


def _what_went(found: Holdings, group: str, whole: bool) -> str:
    if found.group is None:
        return f"there was no resource group {group}"
    if whole:
        return f"the resource group {group} is gone, with {len(found.resources)} resources"
    if not found.ours:
        return f"the group {group} stays: nothing in it was made for {found.workspace_name}"
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
    there = found.workspace is not None and not found.has_existing_workspace
    # In a group that goes, one that was deleted by hand would hold its name on.
    if there or (whole and deleted.workspace(settings, az) is not None):
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
    """Delete the workspace for good: a soft-deleted one would hold its name for two weeks."""
    az.find(
        *("rest", "--method", "delete", "--url", names.purge_url(settings)),
        doing=f"deleting the workspace {settings.WORKSPACE_NAME} for good",
    )
    limit = time.monotonic() + GOING
    while deleted.workspace(settings, az) is not None:
        if time.monotonic() > limit:
            raise SlipwayError(
                f"the workspace {settings.WORKSPACE_NAME} is still there after {GOING:.0f} s",
                "run `make destroy` again; if it stays, look at the workspace in the Azure portal",
            )
        time.sleep(LOOK)


def _is_left(settings: Settings, az: Az, found: Holdings) -> bool:
    """Whether a workspace that was deleted by hand holds its name, and is ours to purge.

    In a group that is not there any more it is taken for ours, whatever it bears.
    """
    ours = deleted.workspace(settings, az)
    if ours is None or found.group is None:
        return ours is not None
    owner = names.owner(ours)
    if owner.lower() == settings.WORKSPACE_NAME.lower():
        return True
    console.step(
        f"a deleted workspace {settings.WORKSPACE_NAME} that Slipway did not make is left alone; it holds "
        f"its name until somebody runs: {names.purge_workspace(settings)}"
    )
    return False


def _purge_left(settings: Settings, az: Az, found: Holdings) -> str:
    """Purge the workspace that was deleted by hand: only in a group can it be reached."""
    free = f"the workspace's name {settings.WORKSPACE_NAME} is free again"
    if found.group is not None:
        _purge_workspace(settings, az)
        return free
    group = names.group(settings)
    where = ("--location", settings.LOCATION, "--tags", f"{names.TAG}={settings.WORKSPACE_NAME}")
    az(
        *("group", "create", "--name", group, *where),
        doing=f"making the group {group} for a moment: its workspace is only soft-deleted",
    )
    _purge_workspace(settings, az)
    az("group", "delete", "--name", group, "--yes")
    return free


def _stays(settings: Settings, vault: DeletedVault) -> str | None:
    """Why a deleted vault is not purged; None if it is."""
    if (whose := vault.whose(settings)) is not None:
        return f"a deleted vault {vault.name} {whose} is left alone"
    if vault.protected:
        return (
            f"the vault {vault.name} is protected from purging: its name is free on {vault.free}, and "
            "until then `make provision` recovers it"
        )
    return None


def _purge_vault(settings: Settings, az: Az, vault: DeletedVault) -> str:
    """Free the deleted vault's name where Azure lets us; says so, or from when it is free."""
    if (why := _stays(settings, vault)) is not None:
        return why
    az(
        *("keyvault", "purge", "--name", vault.name, "--location", vault.region),
        doing=f"purging the deleted vault {vault.name}",
    )
    return f"the vault's name {vault.name} is free again"
