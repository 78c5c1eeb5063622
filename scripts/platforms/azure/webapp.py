"""The service on App Service: an app, and the slot `staging` where a deployment is proven first.

A new deployment is put into the slot, answers the sample there and is swapped in; the one before is
then in the slot, so that a rollback is a swap back. The app's tags are the memory, of what was begun too;
a setting, which moves with a swap as tags do not, tells what the app and the slot really have.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts import console
from scripts.errors import SlipwayError
from scripts.platforms import deployments, starting
from scripts.platforms.azure import deployed
from scripts.platforms.azure.deployed import Kept, State
from scripts.platforms.azure.ground import environment
from scripts.platforms.azure.key import SECRET
from scripts.platforms.azure.refusals import AzureError
from scripts.platforms.azure.service import (
    EACH,
    LOOK,
    PAUSE,
    AzureService,
    Seen,
    not_started,
    what,
)
from scripts.proof import wait_healthy

SLOT = "staging"
#: The setting that tells one deployment's content from another's. A new key changes it, and only a change
#: of settings has App Service ask the vault again at once; else it does so within a day
#: (https://learn.microsoft.com/azure/app-service/app-service-key-vault-references#rotation).
CONTENT = "SLIPWAY_CONTENT"
#: Seconds until the app answers with what was swapped in, and until a swap that az lost sight of ends.
SWAPPED = 120.0
#: What App Service's own log says of a container that will not answer.
FAILED = ("failing site start", "failed during startup", "Image pull failed")
#: Settings of App Service itself: where the service listens, and what a swap waits for.
PLATFORM = {
    "WEBSITES_PORT": "5001",
    "WEBSITES_ENABLE_APP_SERVICE_STORAGE": "false",
    "WEBSITE_SWAP_WARMUP_PING_PATH": "/",
    "WEBSITE_SWAP_WARMUP_PING_STATUSES": "200",
}


class WebApp(AzureService):
    """WEBAPP_DEPLOYMENT_NAME in the resource group."""

    kind = "webapp"
    sizes = ("WEBAPP_SKU",)
    tls = False

    @property
    def _name(self) -> str:
        return self.settings.require("WEBAPP_DEPLOYMENT_NAME")

    @property
    def _where(self) -> tuple[str, ...]:
        return ("--resource-group", self.ground.place.group, "--name", self._name)

    def _check(self) -> None:
        """HTTPS is always there."""

    def _look(self) -> Seen:
        app = self.az.find("webapp", "show", *self._where)
        if not app:
            return Seen(State(), running=False, url=self._url())
        tags = app.get("tags") or {}
        state = deployed.read(tags) or State()
        if state.pending and state.history:
            state = self._settled(state)
        image = str((app.get("siteConfig") or {}).get("linuxFxVersion") or "").partition("|")[2]
        running = app.get("state") == "Running"
        url = f"https://{app.get('defaultHostName') or f'{self._name}.azurewebsites.net'}"
        return Seen(state, running, url, {"image": image})

    def _settled(self, state: State) -> State:
        """What is true after a call that failed, or was cut short: it may have swapped before.

        It is not noted, for a look takes no turns: the call of another machine may be under way.
        """
        new = state.kept[0]
        swapped = self._swapped(state.history[0], new)
        return state.prove(new.number) if swapped else state.failed()

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        if self.seen.detail is None:
            raise deployments.nothing_deployed([])
        if follow:
            yield from self.az.lines("webapp", "log", "tail", *self._where)
        else:
            yield from self._download()[0]

    def _replace(self, seen: Seen, new: Kept, sample: Mapping[str, Any]) -> State:
        if not seen.state.history:
            return self._first(seen, new, sample)
        before = seen.state.get(seen.state.proven)
        state = seen.state.begin(new)
        after = f"{what(before)} serves on" if before and seen.running else "nothing serves"
        # Until it is proven nothing is forgotten that a rollback may need if it fails.
        begun = replace(state, kept=(new, *seen.state.history))
        try:
            self._tag(begun.tags())
            self._fill_slot(seen, state, new)
            reason = self._proven_wrong(
                self._url(SLOT), new, sample, lambda: self._ended(new, SLOT)
            )
            if reason is None:
                self._swap(seen, new)
        except AzureError as error:
            self._give_up()
            raise not_started(new, error, after) from None
        if reason is not None:
            log = self._log_end(new, SLOT)
            self._give_up()
            raise starting.failed_start(what(new), reason, log, after)
        proven = state.prove(new.number)
        self._tag(proven.tags())
        return proven

    def _stop(self, seen: Seen) -> None:
        self.az("webapp", "stop", *self._where)

    # How

    def _first(self, seen: Seen, new: Kept, sample: Mapping[str, Any]) -> State:
        """Where nothing serves yet the app itself is filled and proven."""
        state = seen.state.begin(new)
        try:
            self._create(state, new, first=True)
            if seen.detail is not None and not seen.running:
                self.az("webapp", "start", *self._where)
        except AzureError as error:
            raise not_started(new, error, "nothing serves") from None
        reason = self._proven_wrong(self._url(), new, sample, lambda: self._ended(new))
        if reason is not None:
            log = self._log_end(new)
            self.az("webapp", "stop", *self._where)
            self._tag(state.failed().tags())
            raise starting.failed_start(what(new), reason, log, "nothing serves")
        self._tag({deployed.PROVEN: str(new.number)})
        return state.prove(new.number)

    def _fill_slot(self, seen: Seen, state: State, new: Kept) -> None:
        """Have `new` in the slot, running; after a deployment the one before is there already."""
        slot = self.az.find("webapp", "show", *self._where, "--slot", SLOT) or {}
        inside = self._held(SLOT) if slot else None
        running = slot.get("state") == "Running"
        if inside == _content(new):
            console.step(f"{what(new)} is in the slot {SLOT} already")
        else:
            there = next((each for each in seen.state.kept if _content(each) == inside), None)
            # What the slot ran before answers until the new one does: it must not pass for it.
            if running and (there is None or there.version == new.version):
                self.az("webapp", "stop", *self._where, "--slot", SLOT)
                running = False
            self._create(state, new, first=False)
        if slot and not running:
            self.az("webapp", "start", *self._where, "--slot", SLOT)

    def _create(self, state: State, new: Kept, *, first: bool) -> None:
        """Deploy arm/webapp.json: the slot with `new`, and for the `first` the app too."""
        place = self.ground.place
        plan = ("--resource-group", place.group, "--name", f"{self._name}-plan")
        # Somebody, or autoscale, may have given the plan more than the template would.
        instances = self.az.find("appservice", "plan", "show", *plan, "--query", "sku.capacity")
        settings = {
            **environment(new.settings),
            **self._secrets(),
            **PLATFORM,
            CONTENT: _content(new),
        }
        candidate = {
            "image": new.image,
            "settings": [{"name": n, "value": v} for n, v in sorted(settings.items())],
        }
        values: dict[str, Any] = {
            "name": self._name,
            "location": place.region,
            "sku": new.settings["WEBAPP_SKU"],
            "instances": instances or 1,
            "identity": place.identity_id,
            "identityClient": place.identity_client,
            "first": first,
            "workspace": place.workspace,
            "labels": self.ground.labels(state.tags()),
            "candidate": candidate,
        }
        given = json.dumps({name: {"value": value} for name, value in values.items()})
        self.az(
            *("deployment", "group", "create", "--resource-group", place.group),
            *("--name", f"slipway-{self._name}"),
            *("--template-file", str(self.root / "arm" / "webapp.json")),
            *("--parameters", "@/dev/stdin", "--query", "id"),
            stdin=given,
            doing=f"{'making the app' if first else f'filling the slot {SLOT} of'} {self._name}",
        )

    def _secrets(self) -> dict[str, str]:
        """The secrets as settings of an app: the key stays in the vault, the app looks it up there."""
        uri = f"{self.ground.place.vault_uri.rstrip('/')}/secrets/{SECRET}/"
        return {**self.ground.secrets(), "SCORING_KEY": f"@Microsoft.KeyVault(SecretUri={uri})"}

    def _swap(self, seen: Seen, new: Kept) -> None:
        """Let the slot's deployment serve; swapped back if the app then does not answer as it did."""
        if not seen.running:
            self.az("webapp", "start", *self._where)
        before = seen.state.history[0]
        self._exchange(before, new, f"swapping {what(new)} in")
        if wait_healthy(
            seen.url,
            timeout=SWAPPED,
            alive=lambda: True,
            each=EACH,
            pause=PAUSE,
            version=new.version,
        ):
            return
        self._exchange(new, before, "swapping back: it does not answer")
        self._give_up()
        raise SlipwayError(
            f"{what(new)} answered in the slot {SLOT} and not at {seen.url}; it was swapped back",
            "see `make logs`, then run the verb again",
        )

    def _exchange(self, old: Kept, new: Kept, doing: str) -> None:
        """Swap app and slot, so that `new` serves instead of `old`.

        Made again as it is, the call would undo a swap that az has lost sight of.
        """
        swap = ("webapp", "deployment", "slot", "swap", *self._where, "--slot", SLOT)
        for again in (True, False):
            try:
                self.az(*swap, "--target-slot", "production", doing=doing, once=True)
                return
            except AzureError as error:
                unclear = error.passing or error.expired
                if self._swapped(old, new, SWAPPED if unclear else 0.0):
                    return
                if not (unclear and again):
                    raise
                self._still_ours()

    def _swapped(self, old: Kept, new: Kept, within: float = 0.0) -> bool:
        """Whether the app comes to have `new` instead of `old`; no, where nothing tells them apart."""
        if _content(old) == _content(new):
            return False
        limit = time.monotonic() + within
        while self._held() != _content(new):
            if time.monotonic() >= limit:
                return False
            time.sleep(LOOK)
        return True

    def _held(self, slot: str | None = None) -> str | None:
        """The content that the app, or its slot, has."""
        more = ("--slot", slot) if slot else ()
        settings = ("webapp", "config", "appsettings", "list", *self._where, *more)
        found = self.az.find(*settings, "--query", f"[?name=='{CONTENT}'].value | [0]")
        return str(found) if found else None

    def _give_up(self) -> None:
        """Stop the slot; that its deployment was begun and not proven stays noted on the app."""
        self._still_ours()
        try:
            self.az("webapp", "stop", *self._where, "--slot", SLOT)
        except AzureError as error:
            console.warning(f"the slot {SLOT} still runs: {error.message}")

    def _tag(self, tags: Mapping[str, str]) -> None:
        """Change the app's tags; nothing starts again."""
        self.ground.tag("Microsoft.Web/sites", self._name, tags)

    def _ended(self, new: Kept, slot: str | None = None) -> str | None:
        """Why `new` will not answer, from App Service's own log; None while it may."""
        try:
            platform = self._download(slot)[1]
        except AzureError:
            return None
        for line in platform:
            if line[:19] >= new.started[:19] and any(sign in line for sign in FAILED):
                return "did not start"
        return None

    def _log_end(self, new: Kept, slot: str | None = None) -> list[str]:
        try:
            own, platform = self._download(slot)
        except AzureError as error:
            return [f"(its log cannot be read: {error.message})"]
        told = [line for line in platform if line[:19] >= new.started[:19]]
        # The container before in that place has left its lines there too.
        own = [line for line in own if _time(line, new.started) >= new.started[:19]]
        return [*told[-8:], *own[-(starting.LOG_TAIL - 8) :]]

    def _download(self, slot: str | None = None) -> tuple[list[str], list[str]]:
        """The lines of the container's log and of the platform's, oldest first."""
        with tempfile.TemporaryDirectory(prefix="slipway-log-") as folder:
            file = Path(folder) / "log.zip"
            more = ("--slot", slot) if slot else ()
            self.az("webapp", "log", "download", *self._where, *more, "--log-file", str(file))
            own: list[str] = []
            platform: list[str] = []
            with zipfile.ZipFile(file) as archive:
                for name in sorted(archive.namelist()):
                    if not name.endswith("docker.log"):
                        continue
                    lines = archive.read(name).decode("utf-8", "replace").splitlines()
                    kept = own if name.endswith("_default_docker.log") else platform
                    kept += [line for line in lines if line.strip()]
            return own, platform

    def _url(self, slot: str | None = None) -> str:
        return f"https://{self._name.lower()}{f'-{slot}' if slot else ''}.azurewebsites.net"

    def _serves(self, seen: Seen) -> bool:
        now = seen.state.get(seen.state.proven)
        image = (seen.detail or {}).get("image")
        return super()._serves(seen) and now is not None and image in ("", None, now.image)


def _content(kept: Kept) -> str:
    """Tells a deployment's content from another's; of its secrets it has the fingerprint only."""
    text = json.dumps([kept.image, dict(kept.settings), kept.secrets], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _time(line: str, otherwise: str) -> str:
    """When a line of a log was written, to the second."""
    found = re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", line[:60])
    return found[0] if found else otherwise[:19]
