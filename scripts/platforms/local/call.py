"""One caller's conversation with the supervisor, and what it began."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from scripts.platforms.local.control import PROTOCOL, Message
from scripts.platforms.local.server import Plan, Server

if TYPE_CHECKING:
    from scripts.platforms.local.supervisor import Supervisor


class Call:
    """What one caller began: it ends with the call unless it was committed."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.candidate: Server | None = None
        self.prepared: socket.socket | None = None
        self.alone = False

    async def answer(self, do: str, message: Message) -> Message:
        if do in ("prepare", "promote", "stop") and not self.alone:
            await self.supervisor.changing.acquire()
            self.alone = True
        if do == "prepare":
            return await self.prepare(**message)
        if do == "look" and self.candidate:
            return {"code": self.candidate.process.returncode}
        if do == "promote" and self.candidate:
            plan, prepared = self.candidate.plan, self.prepared
            await self.end_candidate()
            self.prepared = None
            await self.supervisor.promote(plan, prepared=prepared, **message)
            return {}
        if do == "forget":
            state = self.supervisor.state
            state["deployments"] = [
                each for each in state["deployments"] if each["number"] in message["keep"]
            ]
            self.supervisor.save()
            return {}
        if do == "stop":
            return {"stopped": await self.supervisor.stop()}
        return self.tell()

    async def prepare(self, port: int, late: bool, plan: dict[str, Any]) -> Message:
        """Start a server on a private port, to be proven; `late` takes `port` only with promote."""
        self.prepared = None if late else self.supervisor.open(port)
        log = self.supervisor.folder / "candidate.log"
        log.write_bytes(b"")
        self.candidate = Server(Plan(**plan), log)
        await self.supervisor.start(self.candidate)
        return {"port": self.candidate.port}

    def tell(self) -> Message:
        """What serves, so that a verb may compare it with what it wants."""
        serving = self.supervisor.serving
        return {
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "port": self.supervisor.state["port"] if self.supervisor.socket else None,
            "server": serving.process.pid if serving and serving.running else None,
            "plan": asdict(serving.plan) if serving else None,
        }

    async def end_candidate(self) -> None:
        if self.candidate is not None:
            await self.supervisor.dismiss(self.candidate, drain=False)
            self.candidate = None

    async def end(self) -> None:
        await self.end_candidate()
        if self.prepared is not None and self.prepared is not self.supervisor.socket:
            self.prepared.close()
        if self.alone:
            self.supervisor.changing.release()
