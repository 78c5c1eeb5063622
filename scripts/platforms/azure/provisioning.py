"""`provision`: the resource group, then arm/main.json in it; called again it changes what differs."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure import deleted, holdings, names, template
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.deleted import DeletedVault
from scripts.platforms.azure.place import DEPLOYMENT, Place, gather, of_workspace, remembered
from scripts.platforms.azure.refusals import AzureError, explain
from scripts.platforms.azure.template import Assignment, Operator
from scripts.settings import Settings

#: How long another deployment of the same name is waited for, and between two looks, in seconds.
OTHER, LOOK = 1800.0, 10.0
#: How often az may fail without saying why while another deployment comes to its end.
UNREAD = 5


class Provisioning:
    """One call of `provision` or `what-if`: what there is, and what shall be."""

    def __init__(self, root: Path, settings: Settings, az: Az) -> None:
        self.root, self.settings, self.az = root, settings, az
        self.names = names.names(settings)
        remembered(root, settings)  # refuses a workspace's name that is another's
        self.holdings = holdings.look(settings, az)
        if self.holdings.is_going:
            # Where something keeps Azure from deleting it, the group is as before.
            state = "properties.provisioningState != 'Deleting'"
            az(
                *("group", "wait", "--name", self.names.group, "--deleted", "--custom", state),
                *("--interval", "5"),
                doing=f"waiting until Azure has deleted the resource group {self.names.group}",
            )
            self.holdings = holdings.look(settings, az)
        self.holdings.check_owner(self.names)
        self.existing: Mapping[str, str] = {}
        if self.holdings.has_existing_workspace:
            console.step(f"the workspace {self.names.workspace} is there and is used as it is")
            self.existing = of_workspace(settings, az) | {
                "workspaceId": names.workspace_id(settings)
            }
        self.who: Operator = template.operator(az)

    def make(self) -> dict[str, Any]:
        """Do it; the record's fields and its message."""
        if self.holdings.group is None:
            self._make_group()
        recovered = self.vault_to_recover()
        outputs = self._deploy(recover=recovered is not None)
        place = gather(self.settings, self.az, outputs)
        missing = self._roles(place)
        made = f"{place.workspace} in {place.group} ({place.region})"
        return {
            "message": f"{made} is ready" if not missing else f"{made} is ready but for roles",
            **place.fields(),
            "existing_workspace": bool(self.existing),
            "purge_protection": self.settings.PURGE_PROTECTION,
            "roles_to_assign": [item.line for item in missing],
        }

    def parameters(self, *, recover: bool) -> list[str]:
        return template.parameters(
            self.settings, self.names, self.who, existing=self.existing, recover=recover
        )

    def _make_group(self) -> None:
        group = self.names.group
        self.az(
            *("group", "create", "--name", group, "--location", self.settings.LOCATION),
            *("--tags", f"{names.TAG}={self.names.workspace}"),
            doing=f"making the resource group {group} in {self.settings.LOCATION}",
        )

    def vault_to_recover(self) -> DeletedVault | None:
        """The soft-deleted vault of our name; UsageError if it cannot come back to this group."""
        name = self.names.vault
        if self.existing or self.holdings.has(template.VAULTS, name):
            return None
        found = deleted.vault(self.settings, self.az)
        if found is None:
            return None
        if why := found.in_the_way(self.settings):
            raise UsageError(
                f"the vault's name {name} belongs to a deleted vault {why}",
                found.mend(self.settings),
            )
        console.step(f"the deleted vault {name} is recovered, with the secrets in it")
        return found

    def _deploy(self, *, recover: bool) -> Mapping[str, Any]:
        """Deploy the template; waits for another deployment of it to end, and is then its own."""
        limit = time.monotonic() + OTHER
        unread = 0
        cleared = False
        while True:
            try:
                done = self.az(
                    *("deployment", "group", "create", "--resource-group", self.names.group),
                    *("--name", DEPLOYMENT, "--template-file", str(template.path(self.root))),
                    *("--parameters", *self.parameters(recover=recover), "--no-prompt", "true"),
                    doing=f"deploying arm/main.json into {self.names.group} (some minutes)",
                )
            except AzureError as error:
                unread += "already consumed" in error.said
                if unread > UNREAD or not self._is_active(error) or time.monotonic() > limit:
                    failed = self._failed(error)
                    if cleared or not self._clear_roles(failed):
                        raise self._why(error, failed) from None
                    cleared = True
                    continue
                console.step("another provision is at work in this group: waiting for it")
                time.sleep(LOOK)
            except KeyboardInterrupt:
                console.step(
                    "Azure goes on with what it began; `make provision` takes it from there"
                )
                raise
            else:
                outputs = done["properties"]["outputs"]
                if not isinstance(outputs, Mapping):
                    raise SlipwayError(
                        f"the deployment {DEPLOYMENT} left no outputs", "run `make provision` again"
                    )
                return outputs

    def _is_active(self, error: AzureError) -> bool:
        """Whether Azure refused because of a deployment that is under way, or was a moment ago.

        az cannot read that answer and fails with "content ... already consumed", so Azure is asked.
        """
        if error.code == "DeploymentActive":
            return True
        if "already consumed" not in error.said:
            return False
        state = self.az.find(
            *("deployment", "group", "show", "--resource-group", self.names.group),
            *("--name", DEPLOYMENT, "--query", "properties.provisioningState"),
        )
        return state not in (None, "Failed", "Canceled")

    def _failed(self, error: AzureError) -> list[Mapping[str, Any]]:
        """The resources that failed, if that is why the deployment did."""
        known = ("Deployment failed. Correlation", "already consumed")
        codes = ("DeploymentFailed", "RoleAssignmentExists", "RoleAssignmentUpdateNotPermitted")
        if error.code not in codes and not any(word in error.said for word in known):
            return []
        try:
            return list(
                self.az(
                    *("deployment", "operation", "group", "list"),
                    *("--resource-group", self.names.group, "--name", DEPLOYMENT),
                    *("--query", "[?properties.provisioningState=='Failed'].properties"),
                )
                or ()
            )
        except SlipwayError:
            return []

    def _clear_roles(self, failed: list[Mapping[str, Any]]) -> bool:
        """Remove role assignments that are in the way of the template's; whether there were any.

        Azure lets nobody give the assignment of an identity that is gone to the one made in its place,
        nor make one that somebody made by hand.
        """
        ids = [found for item in failed if (found := _in_the_way(item))]
        if ids:
            self.az(
                *("role", "assignment", "delete", "--ids", *ids),
                doing=f"removing {len(ids)} role assignments that are made anew",
            )
        return bool(ids)

    def _why(self, error: AzureError, failed: list[Mapping[str, Any]]) -> AzureError:
        """The error of the first resource that failed: the deployment's own says only that one did."""
        for item in failed:
            target = item.get("targetResource") or {}
            if text := _said(item):
                what = f"{target.get('resourceType', '')} {target.get('resourceName', '')}"
                return explain(what.strip() or "arm/main.json", text, self.settings)
        return error

    def _roles(self, place: Place) -> list[Assignment]:
        """Assign what the template could not; those that are left to an Owner."""
        wanted = list(
            template.assignments(self.root, place, self.who, existing=bool(self.existing))
        )
        if self.settings.ROLE_ASSIGNMENTS:
            if template.elsewhere(self.existing):
                for item in wanted:
                    self.az(*item.command, doing=f"assigning {item.role} on {item.scope}")
            return []
        missing = unassigned(self.az, wanted)
        if missing:
            console.warning("an Owner has to run these commands (ROLE_ASSIGNMENTS=false):")
            for item in missing:
                print(f"  {item.line}", flush=True)
            console.step("`make doctor` tells whether that was done")
        return missing


def _said(failed: Mapping[str, Any]) -> str:
    """What Azure said of a resource that failed."""
    message = failed.get("statusMessage")
    return message if isinstance(message, str) else json.dumps(message) if message else ""


def _in_the_way(failed: Mapping[str, Any]) -> str:
    """The id of the role assignment that keeps this one from being made, "" if that is not why."""
    target = str((failed.get("targetResource") or {}).get("id", ""))
    text = _said(failed)
    if "RoleAssignmentUpdateNotPermitted" in text:
        return target
    there = re.search(r"ID of the existing role assignment is ([0-9a-f]{32})", text)
    if there is None:
        return ""
    return f"{target.rpartition('/')[0]}/{uuid.UUID(there[1])}"


def unassigned(az: Az, wanted: list[Assignment]) -> list[Assignment]:
    """Those of the assignments that are not there; one call for each scope."""
    missing = []
    for scope in dict.fromkeys(item.scope for item in wanted):
        listed = az(
            *("role", "assignment", "list", "--scope", scope, "--include-inherited"),
            *("--fill-principal-name", "false", "--fill-role-definition-name", "false"),
            *("--query", "[].[principalId, roleDefinitionId]"),
        )
        held = {
            (str(who), template.ROLES.get(str(role).rpartition("/")[2])) for who, role in listed
        }
        missing += [
            item
            for item in wanted
            if item.scope == scope and (item.principal, item.role) not in held
        ]
    return missing
