"""What was deleted and still holds its name: Azure keeps vaults and workspaces for a while."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts import console
from scripts.platforms.azure import names
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.names import ARM, WORKSPACE_API
from scripts.platforms.azure.refusals import AzureError
from scripts.platforms.azure.template import WORKSPACES
from scripts.settings import Settings


@dataclass(frozen=True)
class DeletedVault:
    """A soft-deleted vault: the id it had, its region, the workspace its tag names, and its last day.

    `free` is the date its name is free by itself, as YYYY-MM-DD.
    """

    name: str
    id: str
    region: str
    owner: str
    protected: bool
    free: str

    @classmethod
    def of(cls, name: str, listed: Mapping[str, Any]) -> DeletedVault:
        """From how Azure lists it; the name as we write it."""
        properties = listed["properties"]
        return cls(
            name=name,
            id=str(properties["vaultId"]),
            region=str(properties["location"]),
            owner=names.owner(properties),
            protected=bool(properties.get("purgeProtectionEnabled")),
            free=str(properties["scheduledPurgeDate"])[:10],
        )

    def whose(self, settings: Settings) -> str | None:
        """Whose it is, if not ours."""
        group = self.id.lower().partition("/providers/")[0]
        if group != names.group_id(settings).lower():
            return f"of another group ({self.id}, {self.region})"
        if self.owner.lower() not in ("", settings.WORKSPACE_NAME.lower()):
            return f"made for WORKSPACE_NAME={self.owner} ({self.region})"
        return None

    def in_the_way(self, settings: Settings) -> str | None:
        """Why it only holds the name; None if `provision` recovers it."""
        if self.region != settings.LOCATION:
            return self.whose(settings) or f"in {self.region}"
        return self.whose(settings)

    def mend(self, settings: Settings) -> str:
        """What whoever wants its name has to do."""
        if self.protected:
            return f"set another BASE_NAME, or wait until {self.free}"
        purge = names.purge(settings, self.name, self.region)
        return f"run: {purge} (free by itself on {self.free}), or set another BASE_NAME"


def vault(settings: Settings, az: Az) -> DeletedVault | None:
    """The soft-deleted vault of our vault's name in the subscription, if there is one that we may see."""
    name = names.names(settings).vault
    try:
        listed = az("keyvault", "list-deleted", "--resource-type", "vault") or []
    except AzureError as error:
        if error.code != "AuthorizationFailed":
            raise
        # Roles on the group are enough for all else.
        purge = names.purge(settings, name, settings.LOCATION)
        console.warning(
            f"without a role on the subscription nobody can tell whether a deleted vault {name} holds "
            f"its name; somebody who has one frees it: {purge}"
        )
        return None
    found = (item for item in listed if str(item["name"]).lower() == name.lower())
    return next((DeletedVault.of(name, item) for item in found), None)


def workspaces(settings: Settings, az: Az) -> list[Mapping[str, Any]]:
    """All workspaces of the subscription: soft-deleted ones are listed too, and hold their names."""
    url = f"{ARM}subscriptions/{settings.SUBSCRIPTION_ID}/providers/{WORKSPACES}"
    answer = az("rest", "--method", "get", "--url", f"{url}?api-version={WORKSPACE_API}")
    return list(answer["value"])


def workspace(settings: Settings, az: Az) -> Mapping[str, Any] | None:
    """Our workspace, be it there or soft-deleted."""
    ours = names.workspace_id(settings).lower()
    listed = workspaces(settings, az)
    return next((item for item in listed if str(item["id"]).lower() == ours), None)
