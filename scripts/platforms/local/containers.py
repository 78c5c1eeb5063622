"""The service as containers: the one that serves, behind a front that is switched to the next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms import deployments, starting
from scripts.platforms.base import Deployment, Endpoint, Release
from scripts.platforms.local import container as box
from scripts.platforms.local import engine
from scripts.platforms.local.front import COLOURS, NotReached, hardened
from scripts.platforms.local.inventory import Inventory
from scripts.proof import is_healthy
from scripts.settings import Settings, default_port

if TYPE_CHECKING:

    from scripts.platforms.local.processes import ProcessService


class ContainerService:
    """The scoring service of one clone in the Docker engine of this machine."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.here = Inventory(root, settings.SCORING_PORT or default_port(root))

    # What is here

    @property
    def log_delay(self) -> float | None:
        return None

    def described(self, deployment: Deployment) -> bytes | None:
        with engine.explained():
            for each in self.here.containers():
                if box.number(each) == deployment.number:
                    return box.packaged_model(each)
        return None

    def history(self) -> Sequence[Deployment]:
        with engine.explained():
            return self.here.history()

    def endpoint(self) -> Endpoint:
        with engine.explained():
            containers = self.here.containers()
            if not any(box.is_proven(each) and box.is_active(each) for each in containers):
                raise deployments.nothing_deployed(self.here.history())
        return Endpoint(self.here.endpoint_url(), starting.key_headers(self.settings))

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        with engine.explained():
            if follow:
                self.here.client.api.timeout = None  # lines may be hours apart
            shown: set[str] = set()
            while True:
                containers = self.here.containers()
                current = self.here.serving(containers) or next(iter(containers), None)
                if current is None:
                    raise deployments.nothing_deployed([])
                if current.id not in shown:
                    shown.add(current.id)
                    yield from box.log_lines(current, follow=follow)
                if not follow:
                    return
                # Its end: another deployment serves, or will.
                time.sleep(0.5)

    def current(self, release: Release) -> Deployment | None:
        """The serving deployment if it is `release` with the present settings, and healthy.

        Finishes first what an interrupted call left.
        """
        with engine.explained():
            if not self._settle():
                return None
            serving = self.here.serving(self.here.containers())
            if serving is None or release.image is None:
                return None
            same = (
                serving.attrs["Image"] == release.image.id
                and serving.labels.get("slipway.inputs") == release.inputs
                and box.environment(serving) == self._wanted_environment()
                and self.here.front.is_current(self.here.front.image())
            )
            if not same or not is_healthy(self.here.endpoint_url()):
                return None
            return self.here.deployment(serving, serving=True, healthy=True)

    # What changes it

    def deploy(self, release: Release, sample: Mapping[str, Any]) -> Deployment:
        if release.image is None:
            raise UsageError(
                f"version {release.version} of {release.model_name} was packaged without an image",
                "run `make image` (a Docker engine is reachable now)",
            )
        with engine.explained():
            self._settle()
            history = self.here.history()
            labels = {
                "slipway.previous": box.label(deployments.previous_of_new(history, release)),
                "slipway.rejected": box.label(deployments.rejected_after_deploy(history, release)),
                "slipway.model": release.model_name,
                "slipway.version": str(release.version),
                "slipway.inputs": release.inputs,
            }
            return self._replace(
                history, release.image.id, labels, self._wanted_environment(), sample
            )

    def rollback(self) -> Deployment:
        with engine.explained():
            self._settle()
            history = self.here.history()
            current, target = deployments.rollback_target(history)
            container = next(
                each for each in self.here.containers() if box.number(each) == target.number
            )
            labels = {
                "slipway.previous": box.label(target.previous),
                "slipway.rejected": box.label(deployments.rejected_after_rollback(current, target)),
                "slipway.model": target.model_name,
                "slipway.version": str(target.version),
                "slipway.inputs": target.inputs,
            }
            # Its settings of then, but the secrets of now: a key that was changed stays away.
            found = box.environment(container)
            then = {k: v for k, v in found.items() if k not in starting.SERVICE_SECRETS}
            return self._replace(
                history,
                container.attrs["Image"],
                labels,
                {**then, **starting.secret_environment(self.settings)},
                starting.read_sample(box.packaged_model(container)),
            )

    def stop(self) -> int:
        with engine.explained():
            processes = self._processes()
            return (processes.stop() if processes else 0) + self.stop_containers()

    def stop_containers(self) -> int:
        """Stop the containers alone, and the front; returns how many deployments ran."""
        active = []
        for container in self.here.containers():
            if not box.is_proven(container):
                container.remove(force=True)
            elif box.is_active(container):
                active.append(container)
        self._let_go(active)
        if (front := self.here.front.find()) is not None:
            front.remove(force=True)
        return len(active)

    # How

    def _replace(
        self,
        history: Sequence[Deployment],
        image: str,
        labels: Mapping[str, str],
        environment: Mapping[str, str],
        sample: Mapping[str, Any],
    ) -> Deployment:
        """Start a container beside the one that serves, prove it, switch, and stop the old one."""
        serving = next((each for each in history if each.serving), None)
        old = next((each for each in self.here.containers() if box.is_active(each)), None)
        number = deployments.next_number(history)
        colour = COLOURS[0] if old is None or box.colour(old) != COLOURS[0] else COLOURS[1]
        self._open_network()
        processes = self._processes()
        if processes is None:
            self._open_front()
            self.here.front.hold(colour)
        console.step(
            f"starting deployment {number} ({labels['slipway.model']} {labels['slipway.version']})"
        )
        new = self._create(number, colour, image, labels, environment)
        try:
            new.start()
            new.reload()
            starting.prove_start(
                f"deployment {number} (version {labels['slipway.version']})",
                self.here.url(new),
                sample,
                starting.key_headers(self.settings),
                exit_code=lambda: box.exit_code(new),
                log=lambda: list(box.log_lines(new, tail=starting.LOG_TAIL)),
                serving=serving,
            )
            if processes is not None:
                console.step("stopping the service that runs as a process: containers take over")
                processes.stop()
                self._open_front()
            new.update(restart_policy={"Name": box.PROVEN})
        except BaseException:
            new.remove(force=True)
            raise
        try:
            self._switch(new)
        except NotReached:
            new.remove(force=True)
            raise
        if not is_healthy(self.here.endpoint_url()):
            raise SlipwayError(
                f"deployment {number} serves, but {self.here.endpoint_url()} does not answer from here",
                "see `make status` and `make doctor`",
            )
        self._prune()
        return self.here.deployment(new, serving=True, healthy=True)

    def _create(
        self,
        number: int,
        colour: str,
        image: str,
        labels: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> Any:
        import docker.errors

        api = self.here.client.api
        try:
            return self.here.client.containers.create(
                image,
                name=f"{self.here.network}-service-{number}",
                labels={
                    **labels,
                    "slipway.clone": self.here.clone,
                    "slipway.role": "service",
                    "slipway.deployment": str(number),
                    "slipway.colour": colour,
                },
                environment=dict(environment),
                network=self.here.network,
                networking_config={self.here.network: api.create_endpoint_config(aliases=[colour])},
                **hardened("no"),
            )
        except docker.errors.ImageNotFound:
            raise UsageError(
                f"the image of version {labels['slipway.version']} ({image[:19]}) is gone",
                "run `make image FORCE=1`, then `make deploy`",
            ) from None

    def _switch(self, new: Any) -> None:
        """Let only `new` serve: drain and stop every other container that runs."""
        new.reload()
        self.here.front.serve(box.colour(new), box.address(new, self.here.network))
        leaving = [
            each for each in self.here.containers() if box.is_active(each) and each.id != new.id
        ]
        if leaving:
            console.step(f"deployment {box.number(new)} serves; draining the one before")
        self._let_go(leaving)

    def _let_go(self, leaving: Sequence[Any]) -> None:
        """Stop containers once they answered what they were sent."""
        for each in leaving:
            self.here.front.drain(box.colour(each), self.settings.GRACE_SECONDS)
        for each in leaving:
            each.stop(timeout=self._grace())

    def _settle(self) -> bool:
        """Finish or clear away what an interrupted call left; whether a proven container runs."""
        proven = []
        for container in self.here.containers():
            if not box.is_proven(container):
                console.step(f"removing deployment {box.number(container)}, left half-started")
                container.remove(force=True)
            elif box.is_active(container):
                proven.append(container)
        if not proven:
            return False
        if len(proven) > 1 or self.here.serving(proven) is None:
            self._open_front()
            running = [each for each in proven if each.status == "running"]
            if running:
                self._switch(running[0])
        return True

    def _open_network(self) -> None:
        import docker.errors

        try:
            self.here.client.networks.get(self.here.network)
        except docker.errors.NotFound:
            labels = {"slipway.clone": self.here.clone}
            self.here.client.networks.create(self.here.network, driver="bridge", labels=labels)

    def _open_front(self) -> None:
        self.here.front.ensure(self.here.front.image())

    def _processes(self) -> ProcessService | None:
        """This clone's service as a process, if it runs, from when there was no engine."""
        from scripts.platforms.local.processes import ProcessService

        found = ProcessService(self.root, self.settings)
        return found if found.is_running() else None

    def _prune(self) -> None:
        containers = [each for each in self.here.containers() if box.is_proven(each)]
        keep = deployments.kept([self.here.deployment(each) for each in containers])
        for container in containers:
            if box.number(container) not in keep and not box.is_active(container):
                container.remove(force=True)

    def _wanted_environment(self) -> dict[str, str]:
        return {
            **starting.service_settings(self.settings),
            **starting.secret_environment(self.settings),
        }

    def _grace(self) -> int:
        """Whole seconds the engine leaves a service to end by itself."""
        return int(self.settings.GRACE_SECONDS) + starting.ENDING
