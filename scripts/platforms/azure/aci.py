"""The service on Azure Container Instances: one container group, whose tags are the memory.

A group has no revisions. A new deployment takes the place of the one before, with a pause between
them; if it does not come up, the one before is made again.
"""

from __future__ import annotations

import base64
import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms import deployments, starting
from scripts.platforms.azure import deployed
from scripts.platforms.azure.certificate import Certificate
from scripts.platforms.azure.deployed import Kept, State
from scripts.platforms.azure.ground import environment
from scripts.platforms.azure.refusals import AzureError
from scripts.platforms.azure.service import AzureService, Seen, not_started, what

#: The container of the service; the other one ends TLS.
CONTAINER = "scoring"
HTTP, HTTPS = 5001, 8443
#: Azure's word for a change that needs the group to be made anew.
ANEW = "InvalidContainerGroupUpdate"
#: What its sizes are multiples of there: Azure refuses the whole group otherwise.
#: Source: virtual-kubelet/azure-aci, pkg/provider/aci.go.
STEPS = {"DEPLOY_CPU": 0.01, "DEPLOY_MEMORY_GB": 0.1}
#: Restarts after which a new container is given up.
RESTARTS = 2


class ContainerInstance(AzureService):
    """ACI_DEPLOYMENT_NAME in the resource group."""

    kind = "aci"
    in_place = True

    @property
    def _name(self) -> str:
        return self.settings.require("ACI_DEPLOYMENT_NAME")

    @property
    def _where(self) -> tuple[str, ...]:
        return ("--resource-group", self.ground.place.group, "--name", self._name)

    def _check(self) -> None:
        for name, step in STEPS.items():
            value = getattr(self.settings, name)
            steps = value / step
            if abs(steps - round(steps)) > 1e-6:
                raise UsageError(
                    f"{name}={value:g} is no multiple of {step:g}, which Container Instances wants",
                    f"set {name}={math.ceil(steps) * step:g}",
                )
        super()._check()

    def _look(self) -> Seen:
        group = self.az.find("container", "show", *self._where)
        if not group:
            return Seen(State(), running=False, url=self._url(self._host()))
        address = group.get("ipAddress") or {}
        view = (group.get("instanceView") or {}).get("state")
        running = view not in ("Stopped", "Failed", "Succeeded")
        ports = [port["port"] for port in address.get("ports") or []]
        url = self._url(address.get("fqdn") or self._host(), secure=HTTPS in ports)
        state = deployed.read(group.get("tags") or {})
        return Seen(state or State(), running and state is not None, url, group)

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        if self.seen.detail is None:
            raise deployments.nothing_deployed([])
        more = ("--follow",) if follow else ()
        where = (*self._where, "--container-name", CONTAINER)
        for line in self.az.lines("container", "logs", *where, *more):
            if line.strip():
                yield line

    def _replace(self, seen: Seen, new: Kept, sample: Mapping[str, Any]) -> State:
        state = seen.state.begin(new)
        before = seen.state.get(seen.state.proven) if seen.running else None
        try:
            self._create(state, new, self.ground.certificate)
            url = self._url(self._host())
            self._tell_of_dns(url, self._host())
            reason = self._proven_wrong(url, new, sample, self._ended)
        except AzureError as error:
            after = _after(before)
            if self._untouched(seen):
                after = f"{what(before)} serves on" if before else "nothing serves"
            elif seen.detail is not None:
                self._restore(seen, state.failed(), before)
            raise not_started(new, error, after) from None
        except KeyboardInterrupt:
            if before is not None:
                console.step(f"interrupted: `make deploy` puts {what(before)} or another in place")
            raise
        if reason is not None:
            log = self._log_end()
            self._restore(seen, state.failed(), before)
            raise starting.failed_start(what(new), reason, log, _after(before))
        proven = state.prove(new.number)
        self._tag({deployed.PROVEN: str(new.number)})
        return proven

    def _stop(self, seen: Seen) -> None:
        self.az("container", "stop", *self._where)

    # How

    def _create(self, state: State, kept: Kept, certificate: Certificate | None) -> None:
        """Make the group, or make it anew, with `kept` in it, which answers HTTPS with the certificate."""
        name = f"slipway-{self._name}"
        command = ("deployment", "group", "create", "--resource-group", self.ground.place.group)
        template = ("--template-file", str(self.root / "arm" / "aci.json"))
        given = json.dumps(self._parameters(state, kept, certificate))
        arguments = (*command, "--name", name, *template, "--parameters", "@/dev/stdin")
        doing = f"making the container group {self._name}"
        try:
            self.az(*arguments, "--query", "id", stdin=given, doing=doing)
        except AzureError as error:
            if ANEW not in error.code and ANEW not in error.said:
                raise
            console.step("a change of its size needs a new group: removing the old one")
            self.az("container", "delete", *self._where, "--yes")
            self.az(*arguments, "--query", "id", stdin=given, doing=doing)

    def _parameters(
        self, state: State, kept: Kept, certificate: Certificate | None
    ) -> Mapping[str, Any]:
        """What arm/aci.json is given; the secrets are secure parameters."""
        place = self.ground.place
        variables = [
            *({"name": n, "value": v} for n, v in sorted(environment(kept.settings).items())),
            *({"name": n, "secureValue": v} for n, v in sorted(self.ground.secrets().items())),
        ]
        values: dict[str, Any] = {
            "name": self._name,
            "hostLabel": self.ground.label(self._name),
            "location": place.region,
            "identity": place.identity_id,
            "server": place.registry_server,
            "image": kept.image,
            "cpu": kept.settings["DEPLOY_CPU"],
            "memory": kept.settings["DEPLOY_MEMORY_GB"],
            "labels": self.ground.labels(state.tags()),
            "environment": {"variables": variables},
        }
        if certificate is not None:
            config = (self.root / "arm" / "aks" / "haproxy.cfg").read_text("utf-8")
            files = {
                "tls.pem": certificate.chain,
                "tls.pem.key": certificate.key,
                "haproxy.cfg": config,
            }
            packed = {
                name: base64.b64encode(text.encode()).decode() for name, text in files.items()
            }
            values["tls"] = {"image": self.ground.images.push_front(), "files": packed}
        return {name: {"value": value} for name, value in values.items()}

    def _untouched(self, seen: Seen) -> bool:
        """Whether Azure refused before it changed anything: then nothing has to be put back."""
        now = self._look()
        return (now.state, now.running) == (seen.state, seen.running)

    def _restore(self, seen: Seen, state: State, before: Kept | None) -> None:
        """Put back what served; where nothing did, stop what failed."""
        self._still_ours()
        if before is None:
            self._quietly("container", "stop", *self._where)
            self._tag(state.tags())
            return
        console.step(f"putting {what(before)} back")
        self._restore_key()
        # As it was: HTTPS may be just what failed.
        certificate = self.ground.certificate if seen.url.startswith("https:") else None
        self._create(state, before, certificate)
        url = self._url(self._host(), secure=certificate is not None)
        wrong = self._proven_wrong(url, before, self._sample(before), self._ended)
        if wrong is not None:
            raise SlipwayError(
                f"{what(before)} was put back and {wrong}", "see `make logs`, then `make deploy`"
            )

    def _tag(self, tags: Mapping[str, str]) -> None:
        """Change tags; the containers are left alone."""
        self.ground.tag("Microsoft.ContainerInstance/containerGroups", self._name, tags)

    def _ended(self) -> str | None:
        """Why the new containers will not answer; None while they may."""
        group = self.az.find("container", "show", *self._where) or {}
        for container in group.get("containers") or []:
            view = container.get("instanceView") or {}
            now = view.get("currentState") or {}
            if now.get("state") == "Terminated" or (view.get("restartCount") or 0) >= RESTARTS:
                ended = now if now.get("state") == "Terminated" else view.get("previousState") or {}
                code, name = ended.get("exitCode"), container["name"]
                return f"ended with code {code}" + (f" ({name})" if name != CONTAINER else "")
        return None

    def _log_end(self) -> list[str]:
        """The end of the log of what failed."""
        where = (*self._where, "--container-name", CONTAINER)
        try:
            return list(deque(self.az.lines("container", "logs", *where), starting.LOG_TAIL))
        except AzureError as error:
            return [f"(its log cannot be read: {error.message})"]

    def _quietly(self, *arguments: str) -> None:
        try:
            self.az(*arguments)
        except AzureError as error:
            console.warning(error.message)

    def _host(self) -> str:
        label = self.ground.label(self._name)
        return f"{label}.{self.ground.place.region}.azurecontainer.io"

    def _url(self, host: str, *, secure: bool | None = None) -> str:
        if secure is None:
            secure = self.settings.TLS_CERT_NAME is not None
        if not secure:
            return f"http://{host}:{HTTP}"
        certificate = self.ground.certificate
        return f"https://{certificate.host(host) if certificate else host}:{HTTPS}"


def _after(before: Kept | None) -> str:
    return f"{what(before)} was put back and serves" if before else "nothing serves"
