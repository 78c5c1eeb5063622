"""What executes a run: a container of its image, or a process of this very environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.azure.standin.containers import LABEL, pull
from tests.azure.standin.directory import Principal, directory
from tests.azure.standin.ml.workspace import Workspace
from tests.azure.standin.world import APP_OBJECT, World

#: Where a run's code lies in its container.
CODE = "/mnt/azureml/cr/j/{run}/exe/wd"
CA = "/mnt/azureml/standin-ca.pem"
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
AUTHORITIES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")


@dataclass
class Work:
    """A command in a folder of this machine; `log` takes what it prints."""

    run_id: str
    command: str
    folder: Path
    log: Path
    variables: Mapping[str, str]


@dataclass
class Started:
    """It is at work: `wait` gives the exit code, None if it still works then; `kill` ends all of it."""

    process: subprocess.Popen[bytes]
    kill: Callable[[], None]

    def wait(self, seconds: float) -> int | None:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def _standin(world: World, ca: str) -> dict[str, str]:
    """What makes this stand-in the Azure of a process."""
    return {
        **dict.fromkeys(PROXIES, f"http://127.0.0.1:{world.port}"),
        **dict.fromkeys(AUTHORITIES, ca),
        "NO_PROXY": "",
        "no_proxy": "",
        "LANG": "C.UTF-8",
        "AZURE_CORE_COLLECT_TELEMETRY": "no",
    }


def start_process(world: World, work: Work) -> Started:
    """Start the command with this interpreter's environment as its image."""
    home = work.folder.parent / "home"
    home.mkdir(exist_ok=True)
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    environment = {
        **_standin(world, str(world.ca_file)),
        "PATH": path,
        "HOME": str(home),
        "TMPDIR": str(home),
        **work.variables,
    }
    with work.log.open("ab") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", work.command],
            cwd=work.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    return Started(process, kill)


def puller(workspace: Workspace, cluster: str) -> Principal:
    """Who pulls a run's image: the cluster's identity, else the workspace's.

    The workspace's system-assigned one is given its roles with the workspace; others need AcrPull.
    """
    world = workspace.world
    people = directory(world).principals
    for key in (f"{workspace.id}/computes/{cluster}", workspace.id):
        block = world.resources.get(key.lower(), {}).get("identity") or {}
        for identity in (block.get("userAssignedIdentities") or {}).values():
            if identity.get("principalId") in people:
                return people[identity["principalId"]]
        if key != workspace.id and block.get("principalId") in people:
            return people[block["principalId"]]
    return people[APP_OBJECT]


def start_container(workspace: Workspace, cluster: str, image: str, work: Work) -> Started:
    """Start the command in a container of the image; containers.PullFailed if that does not come."""
    world = workspace.world
    local = pull(world, image, puller(workspace, cluster))
    place = CODE.format(run=work.run_id)
    variables = {**_standin(world, CA), "HOME": "/tmp", **work.variables}
    name = f"slipway-run-{world.port}-{work.run_id}"[-120:].lstrip("-_.")
    arguments = [
        *("docker", "run", "--rm", "--init", "--name", name, "--network", "host"),
        *("--label", f"{LABEL}={world.folder}", "--user", f"{os.getuid()}:{os.getgid()}"),
        *("--volume", f"{work.folder}:{place}", "--workdir", place),
        *("--volume", f"{world.ca_file}:{CA}:ro", "--entrypoint", "/bin/sh"),
    ]
    for variable in variables:
        # The values come from docker's own environment: a token is on no command line.
        arguments += ["--env", variable]
    own = {key: os.environ[key] for key in ("PATH", "DOCKER_HOST") if key in os.environ}
    with work.log.open("ab") as log:
        process = subprocess.Popen(
            [*arguments, local, "-c", work.command],
            env={**variables, **own, **_docker_home()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill() -> None:
        subprocess.run(["docker", "kill", name], capture_output=True)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    return Started(process, kill)


def _docker_home() -> dict[str, str]:
    """Docker's client needs no settings of ours."""
    return {"DOCKER_CONFIG": "/nonexistent"}
