"""The supervisor of the service where there is no Docker engine: `supervisor.py ROOT`.

It outlives the verb that started it. It owns the listening socket on 127.0.0.1:SCORING_PORT, which
every server inherits: while one replaces another both accept from it, and no connection is refused.
What it did stands in build/service/state.json; verbs speak to it as control.py says.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import IO, Any

from scripts.errors import SlipwayError
from scripts.platforms.local import control, pids, ports
from scripts.platforms.local.call import Call
from scripts.platforms.local.server import Plan, Server
from scripts.platforms.local.state import read_state, write_state
from scripts.platforms.starting import START_TIMEOUT

#: A server that ended by itself is started again after a pause in seconds, doubled each time it
#: ends again soon.
FIRST_PAUSE, LONGEST_PAUSE, SOON = 0.1, 10.0, 30.0
LOG_BYTES = 10_000_000
#: Seconds a supervisor before us may take to end.
HANDOVER = 10.0
#: Seconds between looks at the log and the clone.
ATTEND = 2.0


class Supervisor:
    """One clone's service: the socket, the server that serves, and those that are leaving."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder.stat().st_ino
        self.state = read_state(folder)
        self.socket: socket.socket | None = None
        self.serving: Server | None = None
        self.others: set[Server] = set()
        self.changing = asyncio.Lock()
        self.ended = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def save(self) -> None:
        """Write the state, with every process that a successor would have to end."""
        ours = [each.told() for each in (self.serving, *self.others) if each and each.running]
        self.state["servers"] = ours + self.orphans()
        if not self.at_home():
            return  # writing would bring a removed clone back
        write_state(self.folder, self.state)

    def orphans(self) -> list[dict[str, Any]]:
        """Servers of a supervisor before us that still run."""
        ours = {each.process.pid for each in (self.serving, *self.others) if each}
        return [
            each
            for each in self.state["servers"]
            if each["pid"] not in ours and pids.is_running(each["pid"], each["identity"])
        ]

    async def end_orphans(self) -> None:
        for each in self.orphans():
            await asyncio.to_thread(pids.end, each["pid"], each["identity"], each["grace"])

    def open(self, port: int) -> socket.socket | None:
        """A socket that listens on `port`; None if servers left behind still hold it.

        UsageError if someone else does.
        """
        if self.socket is not None and self.state["port"] == port:
            return self.socket
        if self.state["port"] == port and self.orphans():
            return None
        return ports.listen(port)

    async def start(self, server: Server) -> None:
        """Start a server that is remembered from its first moment."""
        await server.start()
        self.others.add(server)
        self.save()

    async def dismiss(self, server: Server, *, drain: bool) -> None:
        """End a server that does not serve, or no longer."""
        await (server.stop() if drain else server.kill())
        self.others.discard(server)
        self.save()

    async def promote(
        self, plan: Plan, port: int, prepared: socket.socket | None, deployment: dict[str, Any]
    ) -> None:
        """Start the proven release on the shared socket, then let go what served before."""
        if prepared is None:
            await self.end_orphans()
            prepared = ports.listen(port)
        fresh = Server(plan, self.folder / "service.log", prepared)
        await self.start(fresh)
        if not await fresh.healthy(START_TIMEOUT):
            await self.dismiss(fresh, drain=False)
            if prepared is not self.socket:
                prepared.close()
            raise SlipwayError(
                "the proven server did not start a second time", f"see {fresh.log}, then try again"
            )
        old, before = self.serving, self.socket
        self.serving, self.socket = fresh, prepared
        self.others.discard(fresh)
        if old is not None:
            self.others.add(old)
        self.state.update(port=port, serving=deployment["number"])
        self.state["deployments"].append(deployment)
        self.save()
        self.run(self.keep(fresh))
        await self.end_orphans()
        if old is not None:
            await self.dismiss(old, drain=True)
        if before is not None and before is not prepared:
            before.close()

    async def keep(self, server: Server) -> None:
        """Start a server again whenever it ends by itself."""
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            code = await server.process.wait()
            if server is not self.serving:
                return
            soon = time.monotonic() - began < SOON
            pause = min(pause * 2, LONGEST_PAUSE) if soon else FIRST_PAUSE
            say(f"the server ended with code {code}; starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            if server is not self.serving:
                return
            try:
                await server.start()
            except (OSError, SlipwayError) as error:
                say(f"the server cannot be started: {error}")
                continue
            self.save()

    async def stop(self) -> int:
        """Stop whatever serves; returns how many deployments did."""
        stopped = int(self.serving is not None or bool(self.orphans()))
        server, self.serving = self.serving, None
        if server is not None:
            await server.stop()
        await self.end_orphans()
        self.state["serving"] = None
        self.save()
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        return stopped

    async def attend(self) -> None:
        """Keep service.log bounded, and end when the clone is removed: nobody could end us then."""
        while True:
            await asyncio.sleep(ATTEND)
            try:
                if not self.at_home():
                    say("the clone is gone")
                    async with self.changing:
                        await self.stop()
                    self.ended.set()
                    return
                trim(self.folder / "service.log", LOG_BYTES)
            except OSError as error:
                say(f"service.log cannot be trimmed: {error}")

    def at_home(self) -> bool:
        """Whether our folder is still the one we began in."""
        try:
            return self.folder.stat().st_ino == self.home
        except OSError:
            return False

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one caller until it hangs up."""
        call, do = Call(self), ""
        try:
            while do != "stop" and (line := await reader.readline()):
                message = json.loads(line)
                do = message.pop("do")
                try:
                    answer = await call.answer(do, message)
                except SlipwayError as error:
                    answer = {"error": error.message, "mend": error.mend, "code": error.exit_code}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError, asyncio.CancelledError):
            pass  # the caller went away, or we do
        finally:
            await call.end()
            writer.close()
        if do == "stop":
            self.ended.set()

    async def live(self) -> None:
        """Listen to callers until told to stop."""
        loop = asyncio.get_running_loop()
        signalled = asyncio.Event()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, signalled.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        with control.address(self.folder) as name:
            Path(name).unlink(missing_ok=True)
            listener = await asyncio.start_unix_server(self.converse, name)
            os.chmod(name, 0o600)
        self.run(self.attend())
        say(f"supervising, pid {os.getpid()}")
        ends = [loop.create_task(each.wait()) for each in (signalled, self.ended)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not self.ended.is_set():
            async with self.changing:
                await self.stop()
        listener.close()
        say("stopped")


def trim(log: Path, limit: int) -> None:
    """Set aside a log of more than `limit` bytes. Servers append to it, so it is emptied in place."""
    if log.exists() and log.stat().st_size > limit:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)


def say(text: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(f"{stamp} {text}", flush=True)


def lock_alone(lock: IO[str]) -> bool:
    """Take the lock of the only supervisor; waits a while for one that is on its way out."""
    end = time.monotonic() + HANDOVER
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)


def main(argv: list[str] | None = None) -> int:
    """Begin to supervise in a process of our own, and return; 1 if that is not possible."""
    (root,) = sys.argv[1:] if argv is None else argv
    folder = Path(root) / "build" / "service"
    with (folder / "supervisor.lock").open("a") as lock:
        if not lock_alone(lock):
            say("error: another supervisor is at work")
            return 1
        try:
            supervisor = Supervisor(folder)
        except SlipwayError as error:
            say(f"error: {error.message}")
            return 1
        # The child of nobody who is still there: it is no one's to wait for.
        if os.fork():
            return 0
        asyncio.run(supervisor.live())
    return 0


if __name__ == "__main__":
    sys.exit(main())
