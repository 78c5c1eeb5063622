"""What `make doctor` asks about the caller's own rights: where things are made, and on the vault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from scripts.checks.finding import Finding, ok, problem
from scripts.errors import UsageError
from scripts.platforms.azure import names, template
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.holdings import Holdings
from scripts.platforms.azure.place import place
from scripts.platforms.azure.refusals import OFFICER, RBAC, AzureError, assignment
from scripts.settings import Settings

#: What `deploy`, `smoke` and `load` do with the service's key.
KEY_ACTIONS = tuple(
    f"Microsoft.KeyVault/vaults/secrets/{what}/action" for what in ("getSecret", "setSecret")
)


def rights(settings: Settings, az: Az, found: Holdings) -> list[Finding]:
    """Whether the caller may do what provision does, where it does it."""
    there = found.group is not None
    scope = names.group_id(settings) if there else f"/subscriptions/{settings.SUBSCRIPTION_ID}"
    given = _permissions(az, scope)
    actions = {
        "Microsoft.Resources/deployments/write": "Contributor",
        f"{template.WORKSPACES}/write": "Contributor",
        "Microsoft.Resources/subscriptions/resourceGroups/write": "Contributor",
    }
    if settings.ROLE_ASSIGNMENTS:
        actions["Microsoft.Authorization/roleAssignments/write"] = RBAC
    lacking = {role: action for action, role in actions.items() if not _allows(given, action)}
    if not lacking:
        return [ok("azure roles", f"enough on {'the group' if there else 'the subscription'}")]
    told = []
    for role, action in lacking.items():
        mend = f"an Owner runs: {_assign(az, role, scope)}"
        if role != "Contributor":
            mend += ", or set ROLE_ASSIGNMENTS=false"
        told.append(problem("azure roles", f"you may not {action}", mend))
    return told


def key_rights(root: Path, settings: Settings, az: Az) -> list[Finding]:
    """Whether the caller may use the service's key: no role on the group gives that, not even Owner."""
    try:
        where = place(root, settings, az)
    except UsageError:
        return []  # nothing is provisioned yet, and who provisions is given it
    try:
        given = _permissions(az, where.vault_id)
    except AzureError as error:
        if not error.missing:
            raise
        return []  # gone since: `make provision` makes it
    lacking = [each for each in KEY_ACTIONS if not _allows(given, each, "dataActions")]
    if not lacking:
        return [ok("azure roles", f"enough on the vault {where.vault}")]
    return [
        problem(
            "azure roles",
            f"you may not {lacking[0]} on the vault {where.vault}, which deploy, smoke and load do",
            "run `make provision`, which gives that role, or an Owner runs: "
            + _assign(az, OFFICER, where.vault_id),
        )
    ]


def _permissions(az: Az, scope: str) -> Sequence[Mapping[str, Any]]:
    url = f"{names.ARM}{scope.lstrip('/')}/providers/Microsoft.Authorization/permissions"
    given: Sequence[Mapping[str, Any]] = az(
        "rest", "--method", "get", "--url", f"{url}?api-version=2022-04-01"
    )["value"]
    return given


def _assign(az: Az, role: str, scope: str) -> str:
    return assignment(template.operator(az).id, role, scope)


def _allows(permissions: Sequence[Mapping[str, Any]], action: str, kind: str = "actions") -> bool:
    """Whether one of the permissions has the action and does not take it away."""

    def hit(patterns: Sequence[str] | None) -> bool:
        return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns or ())

    taken = f"not{kind[0].upper()}{kind[1:]}"
    return any(hit(each.get(kind)) and not hit(each.get(taken)) for each in permissions)
