"""The scoring service: `python -m scoring.server --host 0.0.0.0 --port 5001`.

Listens on a port of its own and, with `--fd`, on a socket it inherits, which several servers may
share while one replaces another. SIGTERM or SIGINT drains: the server stops accepting, answers what
still comes on open connections with `Connection: close`, and ends once they are gone or after
GRACE_SECONDS.

Exit codes: 0 drained; 130 or 143 told to stop before it listened; 1 the model is wrong; 2 a setting is wrong or the port is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence

import uvicorn

from scoring.errors import StartError
from scoring.log import log_event
from scoring.protocol import ScoringProtocol, ServiceState
from scoring.settings import Settings

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
_NUMERIC_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ScoringServer(uvicorn.Server):
    """uvicorn's server with a drain that closes no idle connection under a client's hands."""

    def __init__(
        self, config: uvicorn.Config, settings: Settings, listening: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._listening = listening
        self._grace_seconds = settings.grace_seconds
        self._state = ServiceState(settings.body_timeout)
        self.server_state = self._state

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, with the signals' handlers in place already, and say so."""
        await super().startup(sockets)
        self._listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain."""
        self._state.draining = True
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        # Connections accepted in this very moment still have to show up among the open ones.
        await asyncio.sleep(0.01)
        log_event("draining", connections=len(self._state.connections))
        for connection in list(self._state.connections):
            connection.shutdown()
        deadline = time.monotonic() + self._grace_seconds
        while self._state.connections and not self.force_exit and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        log_event("drained", connections=len(self._state.connections))

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take signals as requests to drain; unlike uvicorn, do not die of them afterwards."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service until it is told to stop."""
    started = time.perf_counter()
    arguments = _parse_arguments(argv)
    # Told to stop before there is anything to drain; process 1 of a container has no default.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os._exit(128 + number))
    # The thread that holds the model is one; numeric libraries read this when first imported.
    for variable in _NUMERIC_THREADS:
        os.environ.setdefault(variable, "1")
    try:
        settings = Settings.from_environ(os.environ)
        sockets = [_bind(arguments.host, arguments.port)]
        if arguments.fd is not None:
            sockets.append(_inherit(arguments.fd))
        return _serve(settings, sockets, started)
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _serve(settings: Settings, sockets: list[socket.socket], started: float) -> int:
    # Imported late: numpy and the model's runtime are slow, and a wrong setting needs neither.
    from scoring.app import App
    from scoring.score import Scorer

    scorer = Scorer.load(settings)
    app = App(scorer, settings)
    config = uvicorn.Config(
        app,
        http=ScoringProtocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    # Its warnings about garbage would be plain text; the protocol logs a line of its own.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    for sock in sockets:
        _listen(sock)
    gc.collect()
    gc.freeze()
    host, port = sockets[0].getsockname()[:2]
    contract = scorer.contract

    def listening() -> None:
        log_event(
            "listening",
            host=host,
            port=port,
            model=contract.name,
            version=contract.version,
            runtime=contract.runtime,
            start_ms=round((time.perf_counter() - started) * 1000),
        )

    ScoringServer(config, settings, listening).run(sockets=sockets)
    if app.worker.busy:
        # A model that is still at work past the grace period would make a clean end wait for it.
        os._exit(0)
    return 0


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scoring.server", description="Serve a model.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=5001, help="port to listen on; 0 takes any")
    parser.add_argument("--fd", type=int, help="also serve this inherited listening socket")
    return parser.parse_args(argv)


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise StartError(f"--port is {port}; it must be from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(f"{host}:{port}", error) from error
    return sock


def _listen(sock: socket.socket) -> None:
    try:
        sock.listen(_BACKLOG)
    except OSError as error:
        host, port = sock.getsockname()[:2]
        raise _cannot_listen(f"{host}:{port}", error) from error


def _inherit(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise StartError(f"--fd {fd} is not a listening socket")
    except (OSError, ValueError) as error:
        raise StartError(f"--fd {fd} is not a listening socket: {error}") from error
    return sock


def _cannot_listen(address: str, error: Exception) -> StartError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return StartError(f"cannot listen on {address}: {reason}; choose another --host or --port")


if __name__ == "__main__":
    sys.exit(main())
