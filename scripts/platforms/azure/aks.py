"""The service on Kubernetes: a Deployment of several pods, whose annotations are the memory.

The cluster is one that is attached to the workspace. It is spoken to by `az aks command invoke`, so it
may be private and no kubectl is needed. A rollout takes no pod away before another is ready; one that
fails is undone.
"""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms import deployments, starting
from scripts.platforms.azure import deployed, manifests, names, pods
from scripts.platforms.azure.deployed import Kept, State
from scripts.platforms.azure.ground import environment
from scripts.platforms.azure.refusals import ROOM, AzureError, Kind
from scripts.platforms.azure.service import AzureService, Seen, not_started, what

NAMESPACE = "slipway"
#: Seconds a rollout may take: az itself gives a command up after 300.
ROLLOUT = 240
#: The api-version of a workspace's computes.
COMPUTES = "2022-05-01"
#: Lines of each pod's log that `make logs` reads, and seconds between two looks that follow it.
LINES, FOLLOW = 1000, 5.0
FILE = "slipway.yaml"
NUMBER = "slipway.number"


class Kubernetes(AzureService):
    """AKS_DEPLOYMENT_NAME on the cluster AKS_COMPUTE_NAME."""

    kind = "aks"
    sizes = ("DEPLOY_CPU", "DEPLOY_MEMORY_GB", "AKS_MIN_REPLICAS", "AKS_MAX_REPLICAS")

    @property
    def _name(self) -> str:
        return self.settings.require("AKS_DEPLOYMENT_NAME").lower()

    @cached_property
    def cluster(self) -> tuple[str, str, str]:
        """Resource group, name and region of the cluster that the workspace calls AKS_COMPUTE_NAME."""
        compute = self.settings.require("AKS_COMPUTE_NAME")
        found: Mapping[str, Any] = (
            self.az.find(
                *("resource", "show", "--ids"),
                *(f"{self.ground.place.workspace_id}/computes/{compute}",),
                *("--api-version", COMPUTES, "--query", "properties"),
            )
            or {}
        )
        parts = str(found.get("resourceId") or "").split("/")
        if len(parts) != 9 or parts[7].lower() != "managedclusters":
            wrong = "is no cluster" if found else "is no compute"
            raise UsageError(
                f"AKS_COMPUTE_NAME={compute} {wrong} of the workspace {self.settings.WORKSPACE_NAME}",
                "attach an AKS cluster under that name (Azure ML studio, Compute, Kubernetes clusters)",
            )
        return parts[4], parts[8], str(found.get("computeLocation") or self.ground.place.region)

    def _check(self) -> None:
        super()._check()
        if self.settings.AKS_MIN_REPLICAS > self.settings.AKS_MAX_REPLICAS:
            raise UsageError(
                f"AKS_MIN_REPLICAS={self.settings.AKS_MIN_REPLICAS} is more than"
                f" AKS_MAX_REPLICAS={self.settings.AKS_MAX_REPLICAS}",
                "set the most to at least the fewest",
            )

    def _look(self) -> Seen:
        where = f"-n {NAMESPACE} -o json --ignore-not-found"
        said = self._run(
            f"kubectl get deployment,service {self._name} {where}",
            doing=f"asking the cluster {self.cluster[1]}",
        )
        items = {item["kind"]: item for item in pods.parse(said).get("items") or []}
        deployment = items.get("Deployment")
        if deployment is None:
            return Seen(State(), running=False, url=self._url())
        state = deployed.read(deployment["metadata"].get("annotations") or {})
        running = deployment["spec"].get("replicas", 1) > 0 and state is not None
        ports = ((items.get("Service") or {}).get("spec") or {}).get("ports") or []
        secure = any(port["port"] == 443 for port in ports)
        return Seen(state or State(), running, self._url(secure=secure), deployment)

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        if self.seen.detail is None:
            raise deployments.nothing_deployed([])
        shown: set[str] = set()
        while True:
            for line in self._run(self._log(LINES)).splitlines():
                if line.strip() and line not in shown:
                    yield line
                if follow:
                    shown.add(line)
            if not follow:
                return
            time.sleep(FOLLOW)

    def _replace(self, seen: Seen, new: Kept, sample: Mapping[str, Any]) -> State:
        state = seen.state.begin(new)
        before = seen.state.get(seen.state.proven) if seen.running else None
        after = f"{what(before)} serves on" if before else "nothing serves"
        fewest = new.settings["AKS_MIN_REPLICAS"]
        scale = f"kubectl scale deployment/{self._name} -n {NAMESPACE} --replicas={fewest}"
        start = [] if seen.running or seen.detail is None else [scale]
        command = " && ".join([f"kubectl apply -f {FILE}", *start, self._status])
        try:
            code, said = self._invoke(
                command, manifest=self._manifest(state, new), doing=f"rolling {what(new)} out"
            )
        except AzureError as error:
            applied = self._applied(new)
            if applied:
                self._undo(state.failed(), before)
            known = after if applied is not None else "`make status` tells what serves"
            raise not_started(new, error, known) from None
        if code:
            reason: str | None = f"was not rolled out: {pods.last(said)}"
        else:
            url = self._url()
            self._tell_of_dns(url, self._host)
            reason = self._proven_wrong(url, new, sample, lambda: None)
        if reason is not None:
            more, log, mend = self._explain(new)
            self._undo(state.failed(), before)
            raise starting.failed_start(what(new), reason + more, log, after, mend)
        self._run(self._annotate({deployed.PROVEN: str(new.number)}))
        return state.prove(new.number)

    def _stop(self, seen: Seen) -> None:
        self._run(f"kubectl scale deployment/{self._name} -n {NAMESPACE} --replicas=0")

    # How

    @property
    def _status(self) -> str:
        where = f"deployment/{self._name} -n {NAMESPACE} --timeout={ROLLOUT}s"
        return f"kubectl rollout status {where}"

    def _log(self, lines: int, more: str = "") -> str:
        labels = f"app.kubernetes.io/name={self._name}{more}"
        return f"kubectl logs -l {labels} -n {NAMESPACE} -c scoring --tail={lines} --prefix"

    def _annotate(self, values: Mapping[str, str]) -> str:
        pairs = " ".join(shlex.quote(f"{name}={value}") for name, value in values.items())
        return f"kubectl annotate deployment/{self._name} -n {NAMESPACE} --overwrite {pairs}"

    def _manifest(self, state: State, new: Kept) -> str:
        """arm/aks filled in; the deployment itself remembers, the pods carry their number."""
        low, high = (int(new.settings[f"AKS_{which}_REPLICAS"]) for which in ("MIN", "MAX"))
        certificate = self.ground.certificate
        labels = {
            NUMBER: str(new.number),
            "slipway.model": new.model_name,
            "slipway.version": str(new.version),
        }
        wanted = manifests.Wanted(
            name=self._name,
            namespace=NAMESPACE,
            image=new.image,
            host_label=self.ground.label(self._name),
            environment=environment(new.settings),
            labels=labels,
            secrets=self.ground.secrets(),
            grace_seconds=float(new.settings["GRACE_SECONDS"]),
            cpu=new.settings["DEPLOY_CPU"],
            memory=f"{round(float(new.settings['DEPLOY_MEMORY_GB']) * 1024)}Mi",
            replicas=(low, high),
            deadline_seconds=ROLLOUT - 20,
            tls=(
                manifests.Tls(self.ground.images.push_front(), certificate.chain, certificate.key)
                if certificate
                else None
            ),
        )
        rendered = manifests.render(self.root / "arm" / "aks", wanted)
        deployment = next(each for each in rendered if each["kind"] == "Deployment")
        deployment["metadata"].setdefault("annotations", {}).update(state.tags())
        deployment["spec"]["template"]["metadata"]["labels"][NUMBER] = str(new.number)
        return manifests.as_yaml(rendered)

    def _applied(self, new: Kept) -> bool | None:
        """Whether the cluster has `new`, though the call that brought it failed; None: not known."""
        try:
            return self._look().state.get(new.number) is not None
        except SlipwayError:
            return None

    def _explain(self, new: Kept) -> tuple[str, list[str], str]:
        """What the new pods say of themselves, the end of their log, and what to do."""
        labels = f"app.kubernetes.io/name={self._name},{NUMBER}={new.number}"
        get = f"kubectl get pods -l {labels} -n {NAMESPACE} -o json"
        log = self._log(starting.LOG_TAIL, f",{NUMBER}={new.number}")
        try:
            _, said = self._invoke(f"{get} ; {log}")
        except AzureError as error:
            return "", [f"(its log cannot be read: {error.message})"], ""
        why = pods.reasons(pods.parse(said))
        group, name, _ = self.cluster
        mend = pods.mend(why, group, name, self.ground.place.registry)
        return (f" ({'; '.join(why)})" if why else ""), pods.rest(said), mend

    def _undo(self, state: State, before: Kept | None) -> None:
        """Bring the revision before back; where nothing served, run no pods."""
        self._still_ours()
        where = f"deployment/{self._name} -n {NAMESPACE}"
        note = self._annotate(state.tags())
        if before is None:
            self._invoke(f"kubectl scale {where} --replicas=0 ; {note}")
            return
        console.step(f"undoing the rollout: {what(before)} serves on")
        code, said = self._invoke(f"kubectl rollout undo {where} && {self._status} ; {note}")
        if code:
            raise SlipwayError(
                f"the rollout could not be undone: {pods.last(said)}",
                "see `make status`, `make logs`",
            )

    def _run(self, command: str, doing: str | None = None) -> str:
        """What a command prints that must succeed."""
        code, said = self._invoke(command, doing=doing)
        if code:
            raise SlipwayError(
                f"kubectl on the cluster {self.cluster[1]}: {pods.last(said)}",
                "see what the cluster is at: az aks show --query powerState; then try again",
            )
        return said

    def _invoke(
        self, command: str, *, manifest: str | None = None, doing: str | None = None
    ) -> tuple[int, str]:
        """Run a command in the cluster; its exit code and what it printed."""
        group, name, _ = self.cluster
        call = ("aks", "command", "invoke", "--resource-group", group, "--name", name)
        with tempfile.TemporaryDirectory(prefix="slipway-aks-") as folder:  # 0700
            more: tuple[str, ...] = ()
            if manifest is not None:
                file = Path(folder) / FILE
                file.touch(0o600)
                file.write_text(manifest)
                more = ("--file", str(file))
            try:
                done = self.az(*call, "--command", command, *more, doing=doing)
            except AzureError as error:
                raise self._not_run(error) from None
        return int(done["exitCode"]), str(done.get("logs") or "")

    def _not_run(self, error: AzureError) -> AzureError:
        """Why a command was not run: Azure has several words for a cluster that is stopped."""
        answered = error.code or "invalid status" in error.message
        if not answered or error.expired:
            return error
        group, name, _ = self.cluster
        where = ("--resource-group", group, "--name", name)
        start = names.line(self.settings, f"aks start {' '.join(where)}")
        try:
            power = self.az.find("aks", "show", *where, "--query", "powerState.code")
        except AzureError:
            return error
        if power == "Stopped":
            message, mend = (
                f"the cluster {name} is stopped",
                f"start it: {start}",
            )
        elif "invalid status" in error.message:
            message, mend = f"the cluster {name} did not run a command: {error.message}", ROOM
        else:
            return error
        return AzureError(message, mend, error.code, Kind("", exit_code=1), error.said)

    @property
    def _host(self) -> str:
        return f"{self.ground.label(self._name)}.{self.cluster[2]}.cloudapp.azure.com"

    def _url(self, *, secure: bool | None = None) -> str:
        if secure is None:
            secure = self.settings.TLS_CERT_NAME is not None
        host = self._host
        if not secure:
            return f"http://{host}"
        certificate = self.ground.certificate
        return f"https://{certificate.host(host) if certificate else host}"
