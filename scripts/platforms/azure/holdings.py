"""What is in the resource group, ours and not ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.errors import UsageError
from scripts.platforms.azure import names
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.names import Names
from scripts.platforms.azure.template import MADE, WORKSPACES
from scripts.settings import Settings

COMPONENTS = "microsoft.insights/components"
#: What Application Insights makes beside itself, without our tags: a rule for each component, and one
#: group of whom to tell for all that are in the resource group.
#: https://learn.microsoft.com/azure/azure-monitor/alerts/proactive-failure-diagnostics
RULES, RULE = "microsoft.alertsmanagement/smartdetectoralertrules", "failure anomalies - "
TELLS, TELL = "microsoft.insights/actiongroups", "application insights smart detection"


@dataclass(frozen=True)
class Holdings:
    """The group (None: not there) and the resources in it, as Azure lists them."""

    group: Mapping[str, Any] | None
    resources: Sequence[Mapping[str, Any]]
    workspace_name: str

    @property
    def made_by_us(self) -> bool:
        """Whether `provision` made the group itself."""
        return self.group is not None and names.TAG in (self.group.get("tags") or {})

    @property
    def is_going(self) -> bool:
        """Whether Azure is deleting the group, as it does after a `destroy` that was interrupted."""
        properties = (self.group or {}).get("properties") or {}
        return properties.get("provisioningState") == "Deleting"

    @property
    def ours(self) -> list[Mapping[str, Any]]:
        """What bears our tag, and what is inside of it, as a cluster is in its workspace."""
        tagged = [
            item for item in self.resources if self._is_tagged(item) or self._is_companion(item)
        ]
        roofs = tuple(f"{item['id']}/".lower() for item in tagged)
        return [
            item
            for item in self.resources
            if item in tagged or str(item["id"]).lower().startswith(roofs)
        ]

    @property
    def others(self) -> list[Mapping[str, Any]]:
        ours = self.ours
        return [item for item in self.resources if item not in ours]

    @property
    def workspace(self) -> Mapping[str, Any] | None:
        """The workspace WORKSPACE_NAME, if it is in the group."""
        return self._find(WORKSPACES, self.workspace_name)

    @property
    def has_existing_workspace(self) -> bool:
        """Whether that workspace was there before us."""
        return self.workspace is not None and not self._is_tagged(self.workspace)

    def _is_tagged(self, item: Mapping[str, Any]) -> bool:
        """Whether it bears our tag, and not that of another workspace that shares the group."""
        tags = {str(name): str(value) for name, value in (item.get("tags") or {}).items()}
        if names.TAG in tags:
            return tags[names.TAG].lower() == self.workspace_name.lower()
        return any(name.startswith(f"{names.TAG}.") for name in tags)

    def _is_companion(self, item: Mapping[str, Any]) -> bool:
        """Whether Application Insights made it beside a component of ours, and of nobody else's."""
        kind, name = str(item["type"]).lower(), str(item["name"]).lower()
        theirs = [
            str(each["name"]).lower()
            for each in self.resources
            if str(each["type"]).lower() == COMPONENTS and not self._is_tagged(each)
        ]
        if kind == RULES:
            # Ours may be gone already: the rule is ours if it is nobody else's.
            return name.startswith(RULE) and name.removeprefix(RULE) not in theirs
        return kind == TELLS and name == TELL and not theirs

    def elsewhere(self, location: str) -> str | None:
        """The region that what `provision` made is in, if it is another one."""
        found = {str(item["location"]) for item in self.resources if self._is_tagged(item)}
        return next((each for each in sorted(found) if each not in (location, "global")), None)

    def check_owner(self, wanted: Names) -> None:
        """UsageError if a resource of those names is another workspace's: `provision` would make it
        ours, and `destroy` would then delete it."""
        for field, kind in MADE.items():
            name = getattr(wanted, field)
            whose = names.owner(self._find(kind, name) or {})
            if whose.lower() not in ("", self.workspace_name.lower()):
                raise UsageError(
                    f"{kind.removeprefix('Microsoft.')} {name} in {wanted.group} was made for "
                    f"WORKSPACE_NAME={whose}, and this is {self.workspace_name}",
                    f"set another BASE_NAME, or WORKSPACE_NAME={whose}",
                )

    def has(self, kind: str, name: str) -> bool:
        """Whether a resource of that type and name is there."""
        return self._find(kind, name) is not None

    def _find(self, kind: str, name: str) -> Mapping[str, Any] | None:
        wanted = (kind.lower(), name.lower())
        return next(
            (
                item
                for item in self.resources
                if (str(item["type"]).lower(), str(item["name"]).lower()) == wanted
            ),
            None,
        )


def look(settings: Settings, az: Az, *, quiet: bool = False) -> Holdings:
    """Ask Azure, with two calls, or one where there is no group."""
    group = names.group(settings)
    doing = None if quiet else f"looking into the resource group {group}"
    found = az.find("group", "show", "--name", group, doing=doing)
    resources = az("resource", "list", "--resource-group", group) if found else []
    return Holdings(found, resources or [], settings.WORKSPACE_NAME)


def shown(item: Mapping[str, Any]) -> str:
    """A resource for people: its type and its name."""
    return f"{str(item['type']).removeprefix('Microsoft.')} {item['name']}"
