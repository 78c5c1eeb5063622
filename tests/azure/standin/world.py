"""Everything the stand-in knows: one object, built from a folder, with one lock."""

from __future__ import annotations

import secrets
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.azure.standin.calls import Calls
from tests.azure.standin.faults import Faults
from tests.azure.standin.messages import Json, Refused, Request

TENANT = "11111111-1111-4111-8111-111111111111"
SUBSCRIPTION = "22222222-2222-4222-8222-222222222222"
#: The service principal that can sign in, its secret, and its object id in the directory.
APP = "44444444-4444-4444-8444-444444444444"
APP_OBJECT = "33333333-3333-4333-8333-333333333333"
REGIONS = {"centralus": "Central US", "westeurope": "West Europe", "northeurope": "North Europe"}


@dataclass
class Backend:
    """Where the requests of a host really go: a server on this machine, which speaks plain HTTP."""

    address: tuple[str, int]
    #: Whether clients speak TLS to the host; they find the other port closed.
    tls: bool = True
    #: Only paths that begin so; the others have routes.
    prefix: str = "/"
    #: Called before a request goes there; what it raises is the answer.
    admit: Callable[[Request], None] | None = None


@dataclass
class Operation:
    """An asynchronous operation: `finish` is called once, when it is first asked for after `ready`."""

    id: str
    ready: float
    finish: Callable[[], Json]
    result: Json | None = None
    #: What it was refused with in the end.
    failed: Refused | None = None


@dataclass
class World:
    """The state. `folder` holds what is not in memory: logs, blobs, registries, runs."""

    folder: Path
    #: Whether containers can be run; where not, submitted runs are processes of this environment.
    docker: bool
    #: The repository whose Dockerfile and lock the real image builds here use.
    root: Path
    lock: threading.RLock = field(default_factory=threading.RLock)
    faults: Faults = field(default_factory=Faults)
    #: ARM resources by their id in lower case; values are what GET answers.
    resources: dict[str, Json] = field(default_factory=dict)
    #: Soft-deleted resources by id in lower case.
    deleted: dict[str, Json] = field(default_factory=dict)
    #: Hosts that are servers of this machine, looked up before the routes.
    backends: dict[str, Backend] = field(default_factory=dict)
    #: Asked for the backend of a host that is not in `backends`; what they find may change.
    finders: list[Callable[[str], Backend | None]] = field(default_factory=list)
    #: Hosts that are machines of a user's: where each of their open ports really is. What comes to a
    #: port is passed on as it is; a tunnel may hold TLS that the server there ends itself.
    machines: dict[str, dict[int, tuple[str, int]]] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    #: Secrets of resources (keys, passwords) by (resource id in lower case, name).
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    app_secret: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    #: Things to stop at the end, the last one first.
    closing: list[Callable[[], None]] = field(default_factory=list)
    #: The proxy's own port, known once it listens; containers reach it at 127.0.0.1 too.
    port: int = 0
    ca_file: Path = Path()
    #: Hosts whose routes are asked without TLS.
    plain: set[str] = field(default_factory=set)
    #: For the end of a host's name ("azurecr.io"), whether there is a host of a name at all.
    domains: dict[str, Callable[[str], bool]] = field(default_factory=dict)
    #: What modules keep for themselves, by module name.
    rooms: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.calls = Calls(self.folder / "calls.jsonl")

    def backend(self, host: str) -> Backend | None:
        """The server behind a host, which may start only now; None where routes answer."""
        if host in self.backends:
            return self.backends[host]
        return next((found for find in self.finders if (found := find(host))), None)

    def resolves(self, host: str) -> bool:
        """Whether a host has an address; only the domains that a module keeps can lack one."""
        if host in self.machines or self.backend(host) is not None:
            return True
        known = self.domains.get(host.partition(".")[2])
        return known is None or known(host)

    def close(self) -> None:
        """Stop what modules started."""
        while self.closing:
            self.closing.pop()()
        self.calls.close()


def now() -> str:
    """The present as ARM writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


def new_id() -> str:
    return str(uuid.uuid4())
