"""One worker process: an event loop that accepts connections, and drains when it is told to.

Every worker accepts from the same sockets, one connection at a time, so whoever is idle takes it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING

import uvloop

from scoring.connection import Connection
from scoring.log import log_event
from scoring.metrics import Metrics
from scoring.score import Scorer
from scoring.service import Service
from scoring.settings import Settings
from scoring.telemetry import connect

if TYPE_CHECKING:
    from scoring.tracing import Telemetry

_TICK_SECONDS = 0.25
_MOST_CONNECTIONS = 10_000
_FLUSH_SECONDS = 2.0


class Worker:
    """Serves `scorer` on listening `sockets` until told to drain, or until its parent is gone.

    `lifeline` is a pipe whose other end only the parent holds.
    """

    def __init__(
        self,
        scorer: Scorer,
        settings: Settings,
        sockets: Sequence[socket.socket],
        *,
        index: int,
        inline_bytes: int,
        metrics: Metrics,
        lifeline: int,
    ) -> None:
        self._settings = settings
        self._sockets = list(sockets)
        self._lifeline = lifeline
        self._most = _most_connections()
        self._is_accepting = False
        self._loop = uvloop.new_event_loop()
        self._telemetry: Telemetry | None = connect(os.environ, scorer.contract)
        self._service = Service(
            scorer,
            settings,
            self._loop,
            inline_bytes=inline_bytes,
            metrics=metrics,
            counters=metrics.worker(index),
            telemetry=self._telemetry,
        )
        # No timeout is noticed later than a quarter of itself.
        shortest = min(settings.body_timeout, settings.request_timeout)
        self._tick_seconds = min(_TICK_SECONDS, max(shortest / 4, 0.01))
        self._drained = asyncio.Event()

    def run(self) -> None:
        """Serve; returns once drained."""
        self._loop.add_signal_handler(signal.SIGTERM, self.drain)
        # Ctrl-C reaches every process of the terminal; the parent says what it means.
        self._loop.add_signal_handler(signal.SIGINT, lambda: None)
        # The loop hears of signals only once it runs; the parent's were held back until now.
        stops = (signal.SIGTERM, signal.SIGINT)
        self._loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, stops)
        self._loop.add_reader(self._lifeline, self.drain)
        self._accept_again()
        self._tick()
        self._loop.run_until_complete(self._drained.wait())
        self._service.log.close()
        if self._telemetry is not None:
            self._telemetry.shutdown(_FLUSH_SECONDS)

    def drain(self) -> None:
        """Accept nothing more, and end once the open connections are gone, or the time is up."""
        if self._service.draining:
            return
        # Those whose handshake is done are clients that were promised a server.
        self._accept_waiting()
        self._service.draining = True
        self._stop_accepting()
        for sock in self._sockets:
            sock.close()
        self._loop.remove_reader(self._lifeline)
        log_event("draining", connections=len(self._service.connections))
        self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        # What was accepted in this very moment still has to show up among the open ones.
        await asyncio.sleep(0.01)
        deadline = perf_counter() + self._settings.grace_seconds
        while self._service.connections and perf_counter() < deadline:
            await asyncio.sleep(0.01)
        log_event("drained", connections=len(self._service.connections))
        self._drained.set()

    def _tick(self) -> None:
        # First, so that no failure below ends the timeouts.
        self._loop.call_later(self._tick_seconds, self._tick)
        self._service.tick()
        if not self._service.draining and not self._is_accepting and self._has_room():
            self._accept_again()

    def _accept_again(self) -> None:
        self._is_accepting = True
        for sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)

    def _stop_accepting(self) -> None:
        self._is_accepting = False
        for sock in self._sockets:
            self._loop.remove_reader(sock)

    def _accept_waiting(self) -> None:
        for sock in self._sockets:
            while self._has_room() and self._accept(sock):
                pass

    def _accept(self, sock: socket.socket) -> bool:
        """Take one connection; False if there was none to take, or no room for it."""
        if not self._has_room():
            self._stop_accepting()  # the next tick looks again
            return False
        try:
            client, _ = sock.accept()
        except OSError as error:
            # Another worker was faster, or the client is gone again; else the system is exhausted.
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._stop_accepting()
            return False
        client.setblocking(False)
        self._loop.create_task(self._connect(client))
        return True

    async def _connect(self, client: socket.socket) -> None:
        with suppress(OSError):
            await self._loop.connect_accepted_socket(lambda: Connection(self._service), client)

    def _has_room(self) -> bool:
        """Whether another connection may come; makes room where one is idle."""
        connections = self._service.connections
        if len(connections) < self._most:
            return True
        idle = [each for each in connections if each.is_idle]
        if not idle:
            return False
        # Several at once: to look through all of them for each new one would take too long.
        idle.sort(key=lambda each: each.deadline)
        for each in idle[: 1 + self._most // 100]:
            each.close()
        return True


def _most_connections() -> int:
    """As many as this process may open files for, with some to spare."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + 100
    if soft < wanted:
        with suppress(OSError, ValueError):
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(_MOST_CONNECTIONS, soft - 100))
