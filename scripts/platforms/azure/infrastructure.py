"""What the other parts stand on: login, arm/, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure import changes, login, names, template
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.place import DEPLOYMENT, figures, record, remembered
from scripts.platforms.azure.refusals import AzureError
from scripts.settings import Settings

if TYPE_CHECKING:
    from scripts.checks.finding import Finding


class AzureInfrastructure:
    """`Infrastructure` on Azure; each method asks Azure anew."""

    def __init__(self, root: Path, settings: Settings, az: Az) -> None:
        self.root, self.settings, self.az = root, settings, az

    def login(self) -> str:
        self.az.sign_in(asked=True)
        try:
            # What az's profile says may have expired: only a token tells.
            self.az.token(names.ARM)
        except AzureError as error:
            if not error.expired:
                raise
            self.az.sign_in(again=True, asked=True)
            self.az.token(names.ARM)
        return f"signed in: {login.who(self.settings)}"

    def what_if(self) -> str:
        from scripts.platforms.azure.provisioning import Provisioning

        call = Provisioning(self.root, self.settings, self.az)
        group = call.names.group
        if call.holdings.group is None:
            return "\n".join(self._all_new(call.names))
        where = ("--resource-group", group, "--template-file", str(template.path(self.root)))
        recover = call.vault_to_recover() is not None
        given = ("--parameters", *call.parameters(recover=recover), "--no-prompt", "true")
        try:
            answer = self.az(
                *("deployment", "group", "what-if", "--name", DEPLOYMENT, *where, *given),
                "--no-pretty-print",
                doing="asking Azure what would change",
            )
        except AzureError as error:
            if error.code:
                raise
            # az loses what Azure says against a what-if; against a validation it tells.
            self.az("deployment", "group", "validate", "--name", DEPLOYMENT, *where, *given)
            raise
        found = answer.get("changes") or []
        return "\n".join([*changes.lines(found), changes.summary(found, group)])

    def _all_new(self, wanted: names.Names) -> Iterator[str]:
        """The changes where there is no group that Azure could compare with."""
        yield f"  {changes.WORDS['Create']:<15} resource group {wanted.group} in {self.settings.LOCATION}"
        for field, kind in template.MADE.items():
            yield f"  {changes.WORDS['Create']:<15} {kind} {getattr(wanted, field)}"
        yield f"{wanted.group}: {len(template.MADE) + 1} to create, and their role assignments"

    def provision(self) -> Mapping[str, Any]:
        from scripts.platforms.azure.provisioning import Provisioning

        known = record(self.root, self.settings)
        try:
            remembered(self.root, self.settings)
            return Provisioning(self.root, self.settings, self.az).make()
        except UsageError as error:
            # Nothing was changed: where a wrong setting pointed is not where anything is.
            error.figures |= figures(known)
            raise
        except SlipwayError as error:
            here = {
                "subscription": self.settings.SUBSCRIPTION_ID,
                "group": names.group(self.settings),
            }
            error.figures |= figures({**here, **known})
            raise

    def destroy(self, confirmation: str | None, begun: Callable[[], None]) -> str:
        from scripts.platforms.azure.destruction import destroy

        return destroy(self.settings, self.az, confirmation, begun)

    def findings(self) -> Iterator[Finding]:
        from scripts.platforms.azure.checks import findings

        return findings(self.root, self.settings, self.az)
