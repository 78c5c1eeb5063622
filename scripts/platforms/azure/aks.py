"""The service on Kubernetes: a Deployment of several pods, whose annotations are the memory.

The cluster is one that is attached to the workspace. It is spoken to by `az aks command invoke`, so it
may be private and no kubectl is needed. A rollout takes no pod away before another is ready; one that
fails is undone: what served is applied anew, by its number. `kubectl rollout undo` would take the
revision before the present one, which need not be it: nothing of ours may have been stored, or a call
that was cut short left another, and a command whose answer was lost is given twice.
"""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
        where = f"-l app.kubernetes.io/name={self._name} -n {NAMESPACE} -o json --ignore-not-found"
        said = self._run(
            f"kubectl get deployment,replicaset {where}",
            doing=f"asking the cluster {self.cluster[1]}",
        )
        items = pods.parse(said).get("items") or []
        deployment = next((item for item in items if item["kind"] == "Deployment"), None)
        if deployment is None:
            return Seen(State(), running=False, url=self._url())
        state = deployed.read(deployment["metadata"].get("annotations") or {})
        running = deployment["spec"].get("replicas", 1) > 0 and state is not None
        state = state or State()
        found = pods.revisions(deployment, items)
        serving = found.templates.get(str(state.proven), found.templates[found.live])
        secure = manifests.answers_at(serving) == "https"
        return Seen(state, running, self._url(secure=secure), found)

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
        served = str(before.number) if before else ""
        after = f"{what(before)} serves on" if before else "nothing serves"
        # Both ports are open until the new pods are proven: the old ones know theirs only.
        still = (urlsplit(seen.url).scheme,) if before else ()
        fewest = new.settings["AKS_MIN_REPLICAS"]
        scale = f"kubectl scale deployment/{self._name} -n {NAMESPACE} --replicas={fewest}"
        start = [] if seen.running or seen.detail is None else [scale]
        command = " && ".join([f"kubectl apply -f {FILE}", *start, self._status])
        try:
            code, said = self._invoke(
                command,
                manifest=self._manifest(state, new, still=still),
                doing=f"rolling {what(new)} out",
            )
        except AzureError as error:
            live = self._live()
            if live not in (None, served):
                self._undo(seen, state.failed(), before, stored=True)
            known = after if live is not None else "`make status` tells what serves"
            raise not_started(new, error, known) from None
        stored = True
        if code:
            # An admission webhook may have refused the pods, and may refuse the undoing as well.
            stored = self._live() != served
            reason: str | None = f"was not rolled out: {pods.last(said)}"
        else:
            url = self._url()
            self._tell_of_dns(url, self._host)
            reason = self._proven_wrong(url, new, sample, lambda: None)
        if reason is not None:
            more, log, mend = self._explain(new)
            self._undo(seen, state.failed(), before, stored=stored)
            raise starting.failed_start(what(new), reason + more, log, after, mend)
        proven = state.prove(new.number)
        others = shlex.quote(f"app.kubernetes.io/name={self._name},{pods.NUMBER}!={new.number}")
        self._run(
            f"kubectl apply -f {FILE}"
            f" && kubectl delete secret,configmap -l {others} -n {NAMESPACE} --ignore-not-found",
            manifest=self._manifest(proven, new),
        )
        return proven

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

    def _manifest(
        self,
        state: State,
        new: Kept,
        *,
        still: Collection[str] = (),
        template: Mapping[str, Any] | None = None,
    ) -> str:
        """arm/aks filled in; the deployment itself remembers, the pods carry their number."""
        low, high = (int(new.settings[f"AKS_{which}_REPLICAS"]) for which in ("MIN", "MAX"))
        certificate = self.ground.certificate
        labels = {
            pods.NUMBER: str(new.number),
            "slipway.model": new.model_name,
            "slipway.version": str(new.version),
        }
        wanted = manifests.Wanted(
            name=self._name,
            number=new.number,
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
                if certificate and template is None
                else None
            ),
            still=still,
            pods=template,
        )
        rendered = manifests.render(self.root / "arm" / "aks", wanted)
        deployment = next(each for each in rendered if each["kind"] == "Deployment")
        deployment["metadata"].setdefault("annotations", {}).update(state.tags())
        return manifests.as_yaml(rendered)

    def _live(self) -> str | None:
        """The number of the deployment that the cluster has now; "" for none, None: not known."""
        try:
            found = self._look().detail
        except SlipwayError:
            return None
        return found.live if found else ""

    def _explain(self, new: Kept) -> tuple[str, list[str], str]:
        """What the new pods say of themselves, the end of their log, and what to do."""
        labels = f"app.kubernetes.io/name={self._name},{pods.NUMBER}={new.number}"
        get = f"kubectl get pods -l {labels} -n {NAMESPACE} -o json"
        log = self._log(starting.LOG_TAIL, f",{pods.NUMBER}={new.number}")
        try:
            _, said = self._invoke(f"{get} ; {log}")
        except AzureError as error:
            return "", [f"(its log cannot be read: {error.message})"], ""
        why = pods.reasons(pods.parse(said))
        group, name, _ = self.cluster
        mend = pods.mend(why, group, name, self.ground.place.registry)
        return (f" ({'; '.join(why)})" if why else ""), pods.rest(said), mend

    def _undo(self, seen: Seen, state: State, before: Kept | None, *, stored: bool) -> None:
        """Bring `before` back as it was; where nothing served, run no pods.

        `stored` says whether the cluster has anything else: SlipwayError if that is not undone.
        """
        self._still_ours()
        if before is None:
            scale = f"kubectl scale deployment/{self._name} -n {NAMESPACE} --replicas=0"
            code, said = self._invoke(f"{scale} && {self._annotate(state.tags())}")
        else:
            console.step(f"undoing the rollout: {what(before)} serves on")
            self._restore_key()
            # Where the cluster has forgotten its pods they are made anew, with the secrets of now.
            template = seen.detail.templates.get(str(before.number))
            manifest = self._manifest(state, before, template=template)
            code, said = self._invoke(
                f"kubectl apply -f {FILE} && {self._status}", manifest=manifest
            )
        if code and stored:
            raise SlipwayError(
                f"the rollout could not be undone: {pods.last(said)}",
                "see `make status`, `make logs`",
            )

    def _run(self, command: str, *, manifest: str | None = None, doing: str | None = None) -> str:
        """What a command prints that must succeed."""
        code, said = self._invoke(command, manifest=manifest, doing=doing)
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
