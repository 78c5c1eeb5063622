"""The deployed service on Azure: what its three targets share.

A target says how to look (`_look`), how to bring a deployment up and let it serve (`_replace`), and how
to stop; the rules of deployments are those of every platform (scripts.platforms.deployments).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms import deployments, starting
from scripts.platforms.azure import deployed
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.deployed import Kept, State
from scripts.platforms.azure.ground import Ground
from scripts.platforms.azure.images import pinned
from scripts.platforms.azure.lease import leased
from scripts.platforms.azure.refusals import AzureError
from scripts.platforms.azure.workspace import explained, open_workspace, silenced
from scripts.platforms.base import Deployment, Endpoint, Image, Release, Service
from scripts.proof import is_healthy, untrusted, wait_healthy
from scripts.settings import Settings
from scripts.verb import now

#: Seconds a new service may take until it is healthy: a large image is pulled, a node is started.
START_TIMEOUT = 600.0
#: Seconds to wait for another machine's deployment: it starts, and the one before is put back.
TURN = 2 * START_TIMEOUT
#: Seconds one answer may take meanwhile, and between two questions.
EACH, PAUSE = 10.0, 0.5
#: Seconds between two looks whether it has ended, each of which is a call.
LOOK = 12.0


@dataclass(frozen=True)
class Seen:
    """What there is: `running` says whether it should answer, at `url`; `detail` is the target's own."""

    state: State
    running: bool
    url: str
    detail: Any = None


def connect_service(root: Path, settings: Settings, az: Az) -> Service:
    """The service on DEPLOY_TARGET."""
    if settings.DEPLOY_TARGET == "aci":
        from scripts.platforms.azure.aci import ContainerInstance

        return ContainerInstance(root, settings, az)
    if settings.DEPLOY_TARGET == "webapp":
        from scripts.platforms.azure.webapp import WebApp

        return WebApp(root, settings, az)
    from scripts.platforms.azure.aks import Kubernetes

    return Kubernetes(root, settings, az)


class AzureService(ABC):
    """One service of one clone; an instance lives as long as a verb."""

    kind: str
    #: What its size is called in the settings.
    sizes: tuple[str, ...] = ("DEPLOY_CPU", "DEPLOY_MEMORY_GB")
    #: Whether HTTPS there is ours to answer, with TLS_CERT_NAME.
    tls = True
    #: Whether what is still to be proven stands where the last proven one served.
    in_place = False

    def __init__(self, root: Path, settings: Settings, az: Az) -> None:
        self.root = root
        self.settings = settings
        self.az = az
        self.ground = Ground(root, settings, az, tls=self.tls)
        self._seen: Seen | None = None
        #: SlipwayError where another machine may be at work by now; asked after every long wait.
        self._still_ours: Callable[[], None] = lambda: None

    # What a target does

    @property
    @abstractmethod
    def _name(self) -> str:
        """What it is called there."""

    @abstractmethod
    def _look(self) -> Seen:
        """Ask Azure what there is."""

    @abstractmethod
    def _replace(self, seen: Seen, new: Kept, sample: Mapping[str, Any]) -> State:
        """Bring `new` up, prove it and let it serve; SlipwayError, with the old one serving, if it fails."""

    @abstractmethod
    def _stop(self, seen: Seen) -> None:
        """Let it answer no more."""

    @abstractmethod
    def logs(self, *, follow: bool = False) -> Iterator[str]: ...

    def _check(self) -> None:
        """UsageError where settings do not allow a deployment there."""
        self.ground.require_tls(self.kind)

    # What is there

    @property
    def log_delay(self) -> float | None:
        return self.settings.LOG_WAIT

    @property
    def seen(self) -> Seen:
        """What there is, asked for once."""
        if self._seen is None:
            self._seen = self._look()
        return self._seen

    def history(self) -> Sequence[Deployment]:
        seen = self.seen
        serving = seen.state.proven if self._serves(seen) else None
        healthy = serving is not None and self._is_healthy(seen.url)
        return [
            each.deployment(
                self.kind,
                seen.url,
                serving=each.number == serving,
                healthy=healthy and each.number == serving,
            )
            for each in seen.state.history
        ]

    def endpoint(self) -> Endpoint:
        if not self._serves(self.seen):
            raise deployments.nothing_deployed(self.history())
        url = self.seen.url
        return Endpoint(url, self.ground.headers, self._own_certificate(url))

    def described(self, deployment: Deployment) -> bytes | None:
        kept = self.seen.state.get(deployment.number)
        return None if kept is None else self._model(kept)

    def current(self, release: Release) -> Deployment | None:
        self._check()
        state = self.seen.state
        found = state.get(state.proven)
        if release.image is None or found is None or not self._serves(self.seen):
            return None
        same = (
            not state.pending
            and found.inputs == release.inputs
            and found.image == pinned(release.image)
            and found.settings == self.ground.wanted_settings(self.sizes)
            and found.secrets == self.ground.secrets_hash(found.image)
        )
        if not same or not self._is_healthy(self.seen.url, release.version):
            return None
        return found.deployment(self.kind, self.seen.url, serving=True, healthy=True)

    # What changes it

    def deploy(self, release: Release, sample: Mapping[str, Any]) -> Deployment:
        if release.image is None or release.image.digest is None:
            raise UsageError(
                f"the image of version {release.version} of {release.model_name} is in no registry",
                "run `make image` with PLATFORM=azure",
            )
        self._check()
        with self._alone() as changed:
            history = self.history()
            rejected = deployments.rejected_version(history, release.model_name)
            if changed and rejected is not None and release.version <= rejected:
                raise _overtaken(f"version {rejected} was rolled back")
            new = deployed.of_release(
                release,
                history,
                self.seen.state,
                image=pinned(release.image),
                image_id=release.image.id,
                settings=self.ground.wanted_settings(self.sizes),
                started=now(),
            )
            return self._do(new, sample)

    def rollback(self) -> Deployment:
        history = self.history()
        current, target = deployments.rollback_target(history)
        self._check()
        with self._alone() as changed:
            if changed:
                # One bad version that two people roll back is rolled back once.
                raise _overtaken("what is deployed has changed")
            kept = next(each for each in self.seen.state.kept if each.number == target.number)
            new = replace(
                kept,
                number=self.seen.state.last + 1,
                previous=target.previous,
                rejected=deployments.rejected_after_rollback(current, target),
                started=now(),
            )
            return self._do(new, self._sample(kept))

    def stop(self) -> int:
        with self._alone():
            seen = self.seen
            if not seen.running:
                return 0
            console.step(f"stopping deployment {seen.state.proven}")
            self._stop(seen)
            self._seen = replace(seen, running=False)
            return 1

    # Shared work

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Let no other machine change what is deployed meanwhile; what there is is looked at anew.

        Gives whether one has changed it since this verb looked.
        """
        before, self._seen = self._seen, None
        workspace = open_workspace(self.root, self.settings, self.az)
        name, doing = f"deploy-{self.kind}-{self._name}".lower(), f"changing {self._name}"
        with explained(f"the lock on {self._name}"):
            with silenced():
                datastore = workspace.get_default_datastore()
            with leased(datastore, name, doing, TURN) as self._still_ours:
                known = before or self.seen
                changed = (self.seen.state, self.seen.running) != (known.state, known.running)
                if changed:
                    # The vault's key and certificate may be others too.
                    self.ground = Ground(self.root, self.settings, self.az, tls=self.tls)
                yield changed

    def _serves(self, seen: Seen) -> bool:
        """Whether the last proven deployment is what answers."""
        left = self.in_place and seen.state.pending
        return seen.running and bool(seen.state.history) and not left

    def _do(self, new: Kept, sample: Mapping[str, Any]) -> Deployment:
        self.ground.keep_key()
        new = replace(new, secrets=self.ground.secrets_hash(new.image))
        console.step(f"starting deployment {new.number} ({new.model_name} {new.version})")
        seen, self._seen = self.seen, None
        self._still_ours()
        try:
            state = self._replace(seen, new, sample)
        except SlipwayError:
            self._restore_key()
            raise
        if self._seen is None:
            self._seen = replace(self._look(), state=state)
        return new.deployment(self.kind, self._seen.url, serving=True, healthy=True)

    def _restore_key(self) -> None:
        """Undo what a deployment that failed did to the vault's key."""
        try:
            self._still_ours()
            self.ground.restore_key()
        except SlipwayError as error:
            console.warning(
                f"the vault holds the key of what failed, and what serves has another ({error.message}): "
                "`make deploy` brings them together"
            )

    def _sample(self, kept: Kept) -> Mapping[str, Any]:
        """The sample of a deployment: from its bundle, or where that is gone from its image."""
        bundle = self.root / "build" / "bundles" / kept.inputs / "model" / "model.json"
        try:
            return starting.read_sample(bundle.read_bytes())
        except OSError:
            return starting.read_sample(self._model(kept))

    def _model(self, kept: Kept) -> bytes:
        """model.json in a deployment's image."""
        name, _, digest = kept.image.partition("@")
        image = Image(kept.image_id, f"{name}:{kept.version}", 0, {}, digest)
        console.step(f"reading the model's description from the image of deployment {kept.number}")
        return self.ground.images.read(image, "/app/model/model.json")["model.json"]

    def _own_certificate(self, url: str) -> str:
        """What the service at `url` answers with, where that is a certificate of ours."""
        certificate = self.ground.certificate if url.startswith("https:") else None
        return certificate.own if certificate else ""

    def _is_healthy(self, url: str, version: int | None = None) -> bool:
        own = self._own_certificate(url)
        return is_healthy(url, timeout=EACH, version=version, certificate=own)

    def _tell_of_dns(self, url: str, azure: str) -> None:
        """Say so where the service is called by another name than Azure's."""
        host = urlsplit(url).hostname
        if host != azure:
            console.step(f"the certificate is for {host}: its DNS must point to {azure}")

    def _proven_wrong(
        self, url: str, new: Kept, sample: Mapping[str, Any], ended: Callable[[], str | None]
    ) -> str | None:
        """Wait until `new` answers at `url`; what is wrong with it, None if nothing is.

        `ended` gives why it never will; it is a call to Azure and so asked now and then only.
        """
        console.step(f"waiting until version {new.version} answers at {url}")
        own = self._own_certificate(url)
        watch = _Watch(lambda: ended() or _distrust(url, own))
        healthy = wait_healthy(
            url,
            timeout=START_TIMEOUT,
            alive=watch.alive,
            each=EACH,
            pause=PAUSE,
            version=new.version,
            certificate=own,
            still=lambda spent: console.step(f"still waiting for its answer: {spent:.0f} s so far"),
        )
        self._still_ours()
        if healthy:
            return starting.wrong_answer(url, sample, self.ground.headers, own)
        return watch.reason or f"is not healthy after {START_TIMEOUT:g} s"


class _Watch:
    """Asks now and then whether a starting service has ended."""

    def __init__(self, ended: Callable[[], str | None]) -> None:
        self.ended = ended
        self.reason: str | None = None
        self.next = time.monotonic() + LOOK

    def alive(self) -> bool:
        if time.monotonic() >= self.next:
            self.reason = self.ended()
            self.next = time.monotonic() + LOOK
        return self.reason is None


def _distrust(url: str, certificate: str) -> str | None:
    """What is wrong with the certificate that a new service shows; it will not get better."""
    reason = untrusted(url, timeout=EACH, certificate=certificate)
    return reason and f"answers with a certificate that is not trusted: {reason}"


def what(new: Kept) -> str:
    """A deployment in an error."""
    return f"deployment {new.number} (version {new.version})"


def _overtaken(how: str) -> SlipwayError:
    """Why a verb that waited for its turn does not do what was asked of something else."""
    return SlipwayError(
        f"another machine was faster: {how}",
        "see `make status`, then run the verb again if that is still wanted",
    )


def not_started(new: Kept, error: AzureError, after: str) -> SlipwayError:
    """What Azure refused, with the deployment that it hit; `after` says what serves."""
    raised = SlipwayError(f"{what(new)} could not be started: {error.message}; {after}", error.mend)
    raised.exit_code = error.exit_code
    return raised
