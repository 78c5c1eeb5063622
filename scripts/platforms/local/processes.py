"""The service as a process, where there is no Docker engine; its supervisor does the work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms import deployments, starting
from scripts.platforms.base import Deployment, Endpoint, Release
from scripts.platforms.local import control, pids
from scripts.platforms.local.state import read_state
from scripts.proof import is_healthy
from scripts.settings import Settings, default_port
from scripts.verb import now

#: What a server gets of the caller's environment; no setting and no secret is among them.
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")

_SPAWN_SECONDS = 20.0


class ProcessService:
    """The scoring service of one clone as a supervised process of this machine."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.folder = root / "build" / "service"
        self.port = settings.SCORING_PORT or default_port(root)

    # What is here

    @property
    def log_delay(self) -> float | None:
        return None

    def described(self, deployment: Deployment) -> bytes | None:
        return None

    def history(self) -> Sequence[Deployment]:
        state = read_state(self.folder)
        alive = any(pids.is_running(each["pid"], each["identity"]) for each in state["servers"])
        url = f"http://127.0.0.1:{state['port']}"
        serving = state["serving"] if alive or self.is_running() else None
        healthy = serving is not None and is_healthy(url)
        return [
            Deployment(
                number=each["number"],
                model_name=each["model_name"],
                version=each["version"],
                inputs=each["inputs"],
                image_id=None,
                kind="process",
                url=url,
                inner_url=None,
                previous=each["previous"],
                rejected=each["rejected"],
                serving=each["number"] == serving,
                healthy=each["number"] == serving and healthy,
                started=each["started"],
            )
            for each in sorted(state["deployments"], key=lambda each: -each["number"])
        ]

    def endpoint(self) -> Endpoint:
        history = self.history()
        serving = next((each for each in history if each.serving), None)
        if serving is None:
            raise deployments.nothing_deployed(history)
        return Endpoint(serving.url, starting.key_headers(self.settings))

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        log = self.folder / "service.log"
        if not log.exists():
            raise deployments.nothing_deployed([])
        with log.open("rb") as stream:
            rest = b""
            while True:
                while chunk := stream.read(1 << 16):
                    *whole, rest = (rest + chunk).split(b"\n")
                    yield from (line.decode("utf-8", "replace") for line in whole)
                if not follow:
                    break
                time.sleep(0.2)
                if log.stat().st_size < stream.tell():
                    stream.seek(0)  # the supervisor emptied it
        if rest:
            yield rest.decode("utf-8", "replace")

    def current(self, release: Release) -> Deployment | None:
        """The serving deployment if it is `release` with the present settings, and healthy."""
        try:
            with control.Control(self.folder) as supervisor:
                told = supervisor.ask("tell")
        except OSError:
            return None
        serving = next((each for each in self.history() if each.serving), None)
        same = (
            serving is not None
            and serving.healthy
            and told["protocol"] == control.PROTOCOL
            and told["port"] == self.port
            and told["plan"] is not None
            and told["plan"]["folder"] == os.fspath(release.bundle)
            and told["plan"]["python"] == sys.executable
            and told["plan"]["settings"] == self._settings()
        )
        return serving if same else None

    def is_running(self) -> bool:
        """Whether a supervisor is at work for this clone."""
        try:
            control.Control(self.folder).close()
        except OSError:
            return False
        return True

    # What changes it

    def deploy(self, release: Release, sample: Mapping[str, Any]) -> Deployment:
        history = self.history()
        fresh = {
            "number": deployments.next_number(history),
            "model_name": release.model_name,
            "version": release.version,
            "inputs": release.inputs,
            "previous": deployments.previous_of_new(history, release),
            "rejected": deployments.rejected_after_deploy(history, release),
            "folder": os.fspath(release.bundle),
            "settings": starting.service_settings(self.settings),
        }
        return self._replace(history, fresh, sample)

    def rollback(self) -> Deployment:
        history = self.history()
        current, target = deployments.rollback_target(history)
        then = next(
            each
            for each in read_state(self.folder)["deployments"]
            if each["number"] == target.number
        )
        fresh = {
            **then,
            "number": deployments.next_number(history),
            "previous": target.previous,
            "rejected": deployments.rejected_after_rollback(current, target),
        }
        sample = starting.bundle_sample(Path(then["folder"]))
        return self._replace(history, fresh, sample)

    def stop(self) -> int:
        try:
            with control.Control(self.folder) as supervisor:
                stopped = int(supervisor.ask("stop")["stopped"])
        except OSError:
            # Its supervisor was killed: what it left behind is ended one by one.
            left = read_state(self.folder)["servers"]
            ended = [pids.end(each["pid"], each["identity"], each["grace"]) for each in left]
            return int(any(ended))
        while self.is_running():
            time.sleep(0.02)
        return stopped

    # How

    def _replace(
        self, history: Sequence[Deployment], fresh: dict[str, Any], sample: Mapping[str, Any]
    ) -> Deployment:
        """Have the supervisor start a server, prove it, and have it serve."""
        serving = next((each for each in history if each.serving), None)
        fresh["started"] = now()
        plan = {
            "python": sys.executable,
            "folder": fresh["folder"],
            "environment": self._environment(fresh),
            "settings": {**fresh["settings"], **starting.secret_environment(self.settings)},
        }
        with self._supervisor() as supervisor:
            console.step(
                f"starting deployment {fresh['number']} ({fresh['model_name']} {fresh['version']})"
            )
            candidate_log = self.folder / "candidate.log"
            containers = None
            answer = supervisor.ask("prepare", port=self.port, plan=plan, late=False)
            if "error" in answer and (containers := self._containers()) is not None:
                answer = supervisor.ask("prepare", port=self.port, plan=plan, late=True)
            port = _checked(answer)["port"]
            starting.prove_start(
                f"deployment {fresh['number']} (version {fresh['version']})",
                f"http://127.0.0.1:{port}",
                sample,
                starting.key_headers(self.settings),
                exit_code=lambda: _exit_code(supervisor),
                log=lambda: candidate_log.read_text("utf-8", "replace").splitlines(),
                serving=serving,
            )
            if containers is not None:
                console.step("stopping the service that runs in containers: a process takes over")
                containers.stop_containers()
            _checked(supervisor.ask("promote", port=self.port, deployment=fresh))
            current = self.history()
            supervisor.ask("forget", keep=sorted(deployments.kept(current)))
        return next(each for each in current if each.serving)

    def _supervisor(self) -> control.Control:
        """A conversation with the supervisor, which is started if there is none."""
        try:
            found = control.Control(self.folder)
        except OSError:
            return self._spawn()
        if found.ask("tell")["protocol"] == control.PROTOCOL:
            return found
        console.step("the supervisor is of another release of Slipway: it is replaced")
        with found:
            found.ask("stop")
        return self._spawn()

    def _spawn(self) -> control.Control:
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "supervisor.log"
        # A session of its own and no inherited handle: it holds neither terminal nor make's lock.
        with log.open("wb") as output:
            begun = subprocess.run(
                [sys.executable, "-m", "scripts.platforms.local.supervisor", os.fspath(self.root)],
                cwd=Path(__file__).resolve().parents[3],
                env={**_passed(), "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        end = time.monotonic() + _SPAWN_SECONDS
        while begun.returncode == 0 and time.monotonic() < end:
            try:
                return control.Control(self.folder)
            except OSError:
                time.sleep(0.02)
        said = log.read_text("utf-8", "replace").strip().splitlines()
        raise SlipwayError(
            f"the supervisor of the service did not start: {said[-1] if said else 'no message'}",
            f"see {log}",
        )

    def _containers(self) -> Any | None:
        """This clone's service in containers, if it runs and so holds the port."""
        from scripts.platforms.local.containers import ContainerService

        if not Path("/var/run/docker.sock").exists() and "DOCKER_HOST" not in os.environ:
            return None
        service = ContainerService(self.root, self.settings)
        try:
            found = service.here.front.find()
        except UsageError:
            return None  # the engine does not answer, so nothing of it runs
        return service if found is not None and found.status == "running" else None

    def _settings(self) -> dict[str, str]:
        return {
            **starting.service_settings(self.settings),
            **starting.secret_environment(self.settings),
        }

    def _environment(self, fresh: Mapping[str, Any]) -> dict[str, str]:
        folder = Path(fresh["folder"])
        return {
            **_passed(),
            **fresh["settings"],
            **starting.secret_environment(self.settings),
            "SCORING_MODEL_DIR": os.fspath(folder / "model"),
            # The bundle's own code, as in the image, whatever the working tree has become.
            "PYTHONPATH": os.pathsep.join([os.fspath(folder), os.fspath(folder / "code")]),
            # A bundle stays what it was when it was hashed.
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }


def _passed() -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED if name in os.environ}


def _exit_code(supervisor: control.Control) -> int | None:
    code: int | None = supervisor.ask("look")["code"]
    return code


def _checked(answer: control.Message) -> control.Message:
    """The supervisor's answer; what it refused is raised here as it was there."""
    if "error" in answer:
        kind = UsageError if answer["code"] == UsageError.exit_code else SlipwayError
        raise kind(answer["error"], answer["mend"])
    return answer
