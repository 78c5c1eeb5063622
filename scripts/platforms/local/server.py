"""One process of the scoring server, as the supervisor starts and stops it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.platforms.local import pids, ports
from scripts.platforms.starting import ENDING
from scripts.proof import wait_healthy


@dataclass(frozen=True)
class Plan:
    """What to start: `folder` is the bundle, `settings` what a verb compares with its own."""

    python: str
    folder: str
    environment: dict[str, str]
    settings: dict[str, str]

    @property
    def grace(self) -> float:
        """Seconds the server may take to drain, with some to spare for its end."""
        return float(self.environment["GRACE_SECONDS"]) + ENDING


class Server:
    """A server on a private port of 127.0.0.1 and, if given, on the socket that all share."""

    def __init__(self, plan: Plan, log: Path, shared: socket.socket | None = None) -> None:
        self.plan = plan
        self.log = log
        self.shared = shared
        self.process: asyncio.subprocess.Process
        self.port = 0
        self.identity = ""

    async def start(self) -> None:
        """Start it, or start it again; its output is added to the log."""
        with ports.listen(0) as found:
            self.port = found.getsockname()[1]
        command = [self.plan.python, "-m", "scoring.server"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        handles = []
        if self.shared is not None:
            handles = [self.shared.fileno()]
            command += ["--fd", str(handles[0])]
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self.plan.folder,
                env=self.plan.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=handles,
            )
        self.identity = pids.identity(self.process.pid) or ""

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def told(self) -> dict[str, Any]:
        """What a successor of the supervisor must know to end it."""
        return {"pid": self.process.pid, "identity": self.identity, "grace": self.plan.grace}

    async def healthy(self, seconds: float) -> bool:
        """Whether it is healthy within so many seconds."""
        url = f"http://127.0.0.1:{self.port}"
        return await asyncio.to_thread(
            wait_healthy, url, timeout=seconds, alive=lambda: self.running
        )

    async def stop(self) -> None:
        """Let it drain; it is killed if it outlives its own grace period."""
        with contextlib.suppress(ProcessLookupError):
            if self.running:
                self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), self.plan.grace)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.running:
                self.process.kill()
        await self.process.wait()
