"""The front: one haproxy container that clients stay connected to while services change behind it.

It is switched by commands to its runtime socket and never reloaded (docker/haproxy.cfg). Commands
and columns: https://docs.haproxy.org/2.6/management.html#9.3
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.local.ports import holder, port_taken

if TYPE_CHECKING:
    from docker import DockerClient

COLOURS = ("blue", "green")
BACKEND = "service"
PORT = 8080
SERVICE_PORT = 5001

#: Seconds until the name server's word must have reached the front.
_UP_SECONDS = 20.0
_RUNNING = 2


@dataclass(frozen=True)
class Server:
    """One colour as haproxy sees it; `address` is None while the name server knows none."""

    address: str | None
    up: bool
    wanted: bool  # neither drained nor in maintenance by our command


class NotReached(SlipwayError):
    """The front found no way to a service that is proven; what served before serves on."""


class Front:
    """The front container of one clone; published on 127.0.0.1:`port`."""

    def __init__(self, client: DockerClient, root: Path, clone: str, port: int) -> None:
        self.client = client
        self.root = root
        self.clone = clone
        self.port = port
        self.network = f"slipway-{clone}"
        self.name = f"{self.network}-front"

    def find(self) -> Any | None:
        import docker.errors

        try:
            return self.client.containers.get(self.name)
        except docker.errors.NotFound:
            return None

    def is_current(self, image: str) -> bool:
        """Whether it runs, from this image and on this port."""
        found = self.find()
        return found is not None and found.status == "running" and self._matches(found, image)

    def _matches(self, found: Any, image: str) -> bool:
        wanted = self.client.images.get(image).id
        port = found.labels.get("slipway.port")
        return bool(found.attrs["Image"] == wanted and port == str(self.port))

    def published(self) -> int | None:
        """The port it was made for, which a changed SCORING_PORT is not yet; None if there is none."""
        found = self.find()
        return None if found is None else int(found.labels["slipway.port"])

    def image(self) -> str:
        """The front image's name; it is built when missing. SlipwayError if that fails."""
        if given := os.environ.get("SLIPWAY_FRONT_IMAGE"):
            return given
        script = self.root / "docker" / "image.sh"
        done = subprocess.run(
            [str(script), "front"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            kind = UsageError if done.returncode == 2 else SlipwayError
            raise kind(
                "the front image could not be built", "mend what is said above, run it again"
            )
        return done.stdout.split()[-1]

    def ensure(self, image: str) -> None:
        """Have it running from `image` on our port; UsageError if the port is taken."""
        if self.is_current(image):
            return
        if (found := self.find()) is not None:
            if found.status == "running":
                console.step("the front is replaced (its image or SCORING_PORT changed)")
            found.remove(force=True)
        container = self.client.containers.create(
            image,
            name=self.name,
            labels={
                "slipway.clone": self.clone,
                "slipway.role": "front",
                "slipway.port": str(self.port),
            },
            network=self.network,
            ports={f"{PORT}/tcp": ("127.0.0.1", self.port)},
            **hardened("unless-stopped"),
        )
        self._start(container)
        end = time.monotonic() + _UP_SECONDS
        while not self._answers():
            container.reload()
            if container.status != "running" or time.monotonic() > end:
                log = container.logs(tail=5).decode("utf-8", "replace").strip()
                container.remove(force=True)
                raise SlipwayError(f"the front did not start: {log}", "see docker/haproxy.cfg")
            time.sleep(0.05)

    def _start(self, container: Any) -> None:
        import docker.errors

        try:
            container.start()
        except docker.errors.APIError as error:
            container.remove(force=True)
            text = str(error.explanation)
            if "already allocated" in text or "address already in use" in text:
                raise port_taken(self.port, self._publisher() or holder(self.port)) from None
            raise

    def _publisher(self) -> str | None:
        """The container that publishes our port, in words."""
        for other in self.client.containers.list():
            bindings = [each for found in other.ports.values() for each in found or ()]
            if any(each["HostPort"] == str(self.port) for each in bindings):
                return f"the container {other.name}"
        return None

    def servers(self) -> dict[str, Server]:
        """What serves, by colour; empty if the front does not answer."""
        found = {}
        for line in self._say(f"show servers state {BACKEND}").splitlines():
            field = line.split()
            if len(field) > 6 and field[1] == BACKEND:
                # Administrative state: 1 maintenance and 8 drain are ours, the rest is haproxy's.
                found[field[3]] = Server(
                    address=None if field[4] == "-" else field[4],
                    up=int(field[5]) == _RUNNING and int(field[6]) == 0,
                    wanted=not int(field[6]) & (1 | 8),
                )
        return found

    def hold(self, colour: str) -> None:
        """Send nothing to a colour, which is still to be proven or has ended its work."""
        self._say(f"set server {BACKEND}/{colour} state maint")

    def serve(self, colour: str, address: str) -> None:
        """Send requests to the container at `address` too; returns when it takes them.

        Raises NotReached, and sends it nothing, if it does not.
        """
        end = time.monotonic() + _UP_SECONDS
        while (server := self.servers().get(colour)) is None or not (
            server.up and server.address == address
        ):
            if time.monotonic() > end:
                self.hold(colour)
                raise NotReached(
                    f"the front does not reach the {colour} service at {address} (it sees {server})",
                    f"see `docker logs {self.name}`, then run the verb again",
                )
            # The front's own look at it: its next regular check may be seconds away.
            if server and server.address == address and self._reaches(colour):
                self._say(f"set server {BACKEND}/{colour} state ready")
            else:
                time.sleep(0.05)

    def drain(self, colour: str, seconds: float) -> None:
        """Send nothing new to a colour; returns when it has answered all, or after `seconds`."""
        self._say(f"set server {BACKEND}/{colour} state drain")
        end = time.monotonic() + seconds
        while self._sessions(colour) and time.monotonic() < end:
            time.sleep(0.05)
        self.hold(colour)

    def _sessions(self, colour: str) -> int:
        for line in self._say("show stat").splitlines():
            field = line.split(",")
            if field[:2] == [BACKEND, colour]:
                return int(field[2]) + int(field[4])  # waiting and under way
        return 0

    def _answers(self) -> bool:
        return bool(self.servers())

    def _reaches(self, colour: str) -> bool:
        question = "printf 'GET / HTTP/1.0\\r\\n\\r\\n'"
        answer = self._execute(f'{question} | socat -t5 - "TCP:$1:{SERVICE_PORT}"', colour)
        return " 200 " in answer.partition("\n")[0]

    def _say(self, command: str) -> str:
        """A command to the runtime socket and its answer; "" if the front does not run."""
        return self._execute('echo "$1" | socat -t5 - UNIX-CONNECT:/tmp/front.sock', command)

    def _execute(self, script: str, argument: str) -> str:
        import docker.errors

        try:
            result = self.client.containers.get(self.name).exec_run(
                ["sh", "-c", script, "sh", argument], stderr=False
            )
        except (docker.errors.NotFound, docker.errors.APIError):
            return ""
        return result.output.decode("utf-8", "replace") if result.exit_code == 0 else ""


def hardened(restart: str) -> dict[str, Any]:
    """How every container of ours runs: read-only, without capabilities, with a bounded log."""
    from docker.types import LogConfig

    return {
        "read_only": True,
        "tmpfs": {"/tmp": "size=64m"},  # noqa: S108 - the container's own
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart_policy": {"Name": restart},
        "log_config": LogConfig(type="json-file", config={"max-size": "10m", "max-file": "3"}),
    }
