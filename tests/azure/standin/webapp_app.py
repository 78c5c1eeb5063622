"""An app of App Service, or a slot of one, at work: its container, its log, and what its host answers.

The words of the log are those of App Service on Linux, as its users publish them; how long a thing
takes is *assumed*.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.azure.standin import containers
from tests.azure.standin.containers import Box, PullFailed
from tests.azure.standin.directory import Principal, access_token, directory
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.world import Backend, World

#: The path that a container is asked while it warms up; any answer will do.
WARMUP = "/robots933456.txt"
#: Seconds a container may take to answer, unless WEBSITES_CONTAINER_START_TIME_LIMIT says otherwise.
START_LIMIT = 230.0
#: Seconds an old container gets to end. Source: App Service's grace period on Linux.
GRACE = 5.0
VAULT = re.compile(
    r"@Microsoft\.KeyVault\((?:SecretUri=https://(?P<host>[\w.-]+)/secrets/(?P<name>[\w-]+)"
    r"(?:/(?P<version>\w*))?/?|VaultName=(?P<vault>[\w-]+);SecretName=(?P<secret>[\w-]+)"
    r"(?:;SecretVersion=(?P<old>\w+))?)\)"
)


class Page(Refused):
    """A page of App Service's front end."""

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(status, title, text)

    def answer(self) -> Answer:
        page = (
            f"<!DOCTYPE html><html><head><title>{self.code}</title></head>"
            f"<body><h1>:( {self.code}</h1><p>{self.message}</p></body></html>"
        )
        return Answer(self.status, page, {"Content-Type": "text/html"})


@dataclass
class App:
    """`config` is what GET config/web shows; `settings` the app settings, secrets among them."""

    world: World
    id: str
    host: str
    config: Json
    settings: dict[str, str] = field(default_factory=dict, repr=False)
    #: What the identities of the site are: ids in lower case.
    identities: list[str] = field(default_factory=list)
    vault_identity: str = ""
    #: The secrets by reference: kept when it starts again, until its settings change or a day is over.
    #: Source: MicrosoftDocs/azure-docs#100848, #126435; here no day is over.
    fetched: dict[str, str] = field(default_factory=dict, repr=False)
    stopped: bool = False
    #: "starting", "running" or "failed".
    state: str = "starting"
    box: Box | None = None
    platform: list[str] = field(default_factory=list)
    printed: str = ""
    #: Counts up with every start; a start that is overtaken gives way.
    turn: int = 0
    settled: threading.Event = field(default_factory=threading.Event)
    backend: Backend = field(init=False)

    def __post_init__(self) -> None:
        self.backend = Backend(("127.0.0.1", 9), admit=self.admit)
        self.world.backends[self.host] = self.backend

    @property
    def site(self) -> str:
        """The name in logs and container names: <site> or <site>__<slot>."""
        names = self.id.split("/")[8::2]
        return "__".join(names)

    @property
    def image(self) -> str:
        return str(self.config["linuxFxVersion"]).partition("|")[2]

    @property
    def port(self) -> int:
        return int(self.settings.get("WEBSITES_PORT") or self.settings.get("PORT") or 80)

    def note(self, text: str, level: str = "INFO ") -> None:
        """A line of the platform's own log."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        self.platform.append(f"{stamp}Z {level} - {text}")

    def output(self) -> str:
        """What its containers printed."""
        return self.printed + (self.box.logs() if self.box else "")

    # Its host

    def admit(self, request: Request) -> None:
        """What the front end answers instead of the app; a request waits while the app starts."""
        if self.stopped:
            raise Page(
                403,
                "Error 403 - This web app is stopped.",
                "The web app you have attempted to reach is currently stopped and does not accept any "
                "requests. Please try to reload the page or visit it again soon.",
            )
        if self.box is None and self.state == "starting":
            self.settled.wait(START_LIMIT)
        if self.box is None:
            raise Page(
                503,
                "Application Error",
                "If you are the application administrator, you can access the diagnostic resources.",
            )
        self.backend.address = ("127.0.0.1", self.box.ports[self.port_of(self.box)])

    @staticmethod
    def port_of(box: Box) -> int:
        return next(iter(box.ports))

    # Its container

    def start(self) -> None:
        """Begin to run the present image and settings; what runs now goes on until that answers."""
        self.turn += 1
        self.state, self.stopped = "starting", False
        self.settled.clear()
        thread = threading.Thread(target=self._start, args=(self.turn,), daemon=True)
        thread.start()

    def _start(self, turn: int) -> None:
        name = containers.new_name(self.site.lower() + "_0")
        made: Box | None = None
        try:
            made = self._run(name)
            self._warm(made, name)
            problem = None
        except PullFailed as failed:
            problem = str(failed)
        with self.world.lock:
            if turn != self.turn or self.stopped:
                if made is not None:
                    made.remove()
                return
            old, self.box = self.box, made if problem is None else None
            if problem is None:
                self.state = "running"
                self.note(f"Container {name} for site {self.site} initialized successfully.")
            else:
                self.state = "failed"
                if made is not None:
                    self.printed += made.logs()
                    made.remove()
                self.note(f"Stopping site {self.site} because it failed during startup.")
            self.settled.set()
        if old is not None:
            old_output = old.logs()
            self.printed += old_output
            old.remove(GRACE)

    def _run(self, name: str) -> Box:
        """Pull and create; PullFailed with what the log was told."""
        self.note(f"Pulling image: {self.image}")
        try:
            if self.world.faults.has("web app image cannot be pulled"):
                raise PullFailed(f'Get "https://{self.image.partition("/")[0]}/v2/": i/o timeout')
            if not self.world.docker:
                raise PullFailed("the stand-in runs no containers here")
            local = containers.pull(self.world, self.image, self.puller())
        except PullFailed as failed:
            message = str(failed)
            self.note(
                "DockerApiException: Docker API responded with status code=InternalServerError, "
                f'response={{"message":"{message}"}}',
                "ERROR",
            )
            self.note(f"Pulling docker image {self.image} failed:", "WARN ")
            self.note(
                "Image pull failed: Verify docker image configuration and credentials "
                "(if using private repository)",
                "ERROR",
            )
            raise
        self.note(f"Starting container for site {self.site}")
        # Never with its environment, which holds the app settings.
        self.note(f"docker run -d --expose={self.port} --name {name} {self.image}")
        wrong = self.world.faults.has("web app crashes")
        command = ["/opt/venv/bin/python", "-c", "raise SystemExit('crashed: this is a test')"]
        return containers.run(
            self.world,
            local,
            ports=[self.port],
            environment=self.environment(),
            command=command if wrong else None,
        )

    def _warm(self, box: Box, name: str) -> None:
        self.note(f"Initiating warmup request to container {name} for site {self.site}")
        limit = float(self.settings.get("WEBSITES_CONTAINER_START_TIME_LIMIT") or START_LIMIT)
        began = time.monotonic()
        problem = containers.wait_until_it_answers(box, self.port, WARMUP, limit)
        if problem is None:
            return
        if problem == "exited":
            self.note(
                f"Container {name} for site {self.site} has exited, failing site start", "ERROR"
            )
        else:
            self.note(
                f"Container {name} for site {self.site} did not start within expected time limit. "
                f"Elapsed time = {time.monotonic() - began:.7f} sec",
                "ERROR",
            )
        text = (
            f"Container {name} didn't respond to HTTP pings on port: {self.port}, failing site start. "
            "See container logs for debugging."
        )
        self.note(text, "ERROR")
        self.printed += box.logs()
        box.remove()
        raise PullFailed(text)

    def stop(self) -> None:
        """Stop it: its host answers 403."""
        self.turn += 1
        self.stopped = True
        self.note(f"Stopping site {self.site}")
        if self.box is not None:
            self.printed += self.box.logs()
            self.box.remove(GRACE)
            self.box = None

    def remove(self) -> None:
        """It is deleted."""
        self.stop()
        self.world.backends.pop(self.host, None)

    # Its identity and its secrets

    def puller(self) -> Principal | None:
        """Who pulls: the identity named by its client id, if it is one of the site's."""
        if not self.config.get("acrUseManagedIdentityCreds"):
            return None
        client = str(self.config.get("acrUserManagedIdentityID") or "")
        found = directory(self.world).application(client) if client else None
        return found if found is not None and found.resource in self.identities else None

    def _reader(self) -> Principal | None:
        people = directory(self.world).principals.values()
        wanted = self.vault_identity.lower()
        return next((p for p in people if wanted in self.identities and p.resource == wanted), None)

    def environment(self) -> Mapping[str, str]:
        """What the container sees: the settings, with those that stand in a vault looked up there."""
        given = {
            "WEBSITE_SITE_NAME": self.id.split("/")[8],
            "WEBSITE_HOSTNAME": self.host,
            "WEBSITE_ROLE_INSTANCE_ID": "0",
        }
        for name, value in self.settings.items():
            found = self.fetched.get(value) or self.resolve(value)[0]
            if found is not None:
                self.fetched[value] = found
            given[name] = value if found is None else found
        return given

    def resolve(self, value: str) -> tuple[str | None, Json]:
        """A reference's secret (None: the app sees the reference itself) and its status.

        Source: REST spec, ApiKVReference; the statuses of its `ResolveStatus`.
        """
        if not value.startswith("@Microsoft.KeyVault("):
            return value, {}
        status: Json = {"reference": value, "status": "InvalidSyntax", "source": "KeyVault"}
        match = VAULT.fullmatch(value)
        if match is None:
            return None, status
        host = match["host"] or f"{match['vault']}.vault.azure.net"
        name = match["name"] or match["secret"]
        version = match["version"] or match["old"] or ""
        status |= {
            "vaultName": host.partition(".")[0],
            "secretName": name,
            "secretVersion": version or None,
            "identityType": {"type": "UserAssigned"},
        }
        reader = self._reader()
        if reader is None:
            return None, {**status, "status": "MSINotEnabled"}
        token, _ = access_token(self.world, reader, "https://vault.azure.net")
        path = f"/secrets/{name}/{version}" if version else f"/secrets/{name}"
        asked = Request(
            "GET", host, path, "api-version=7.4", {"authorization": f"Bearer {token}"}, b""
        )
        answer = containers.engine(self.world).routes.call(self.world, asked)
        wrong = {
            404: "SecretNotFound",
            403: "AccessToKeyVaultDenied",
            401: "AccessToKeyVaultDenied",
        }
        if answer.status != 200:
            return None, {**status, "status": wrong.get(answer.status, "OtherReasons")}
        return str(answer.body["value"]), {**status, "status": "Resolved"}


def swap(one: App, other: App, sticky: set[str]) -> None:
    """Exchange what two slots run; settings named in `sticky` stay where they are."""
    kept = [{n: v for n, v in app.settings.items() if n in sticky} for app in (one, other)]
    moved = [{n: v for n, v in app.settings.items() if n not in sticky} for app in (one, other)]
    one.settings, other.settings = {**moved[1], **kept[0]}, {**moved[0], **kept[1]}
    one.fetched, other.fetched = other.fetched, one.fetched
    one.config, other.config = other.config, one.config
    one.box, other.box = other.box, one.box
    one.state, other.state = other.state, one.state
    one.turn += 1
    other.turn += 1


def when_settled(app: App, then: Callable[[], Any]) -> None:
    """Call `then` on a thread once the app runs or has failed."""

    def wait() -> None:
        app.settled.wait(START_LIMIT)
        then()

    threading.Thread(target=wait, daemon=True).start()
