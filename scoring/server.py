"""The scoring service: `python -m scoring.server --host 0.0.0.0 --port 5001`.

Listens on a port of its own and, with `--fd`, on a socket it inherits, which several servers may
share while one replaces another. This process loads the model, starts WORKERS processes that answer,
and replaces one that dies. SIGTERM or SIGINT drains: the server stops accepting, answers what
still comes on open connections with `Connection: close`, and ends once they are gone or after
GRACE_SECONDS.

Exit codes: 0 drained; 130 or 143 told to stop before it listened; 1 the model is wrong; 2 a setting
is wrong or the port is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from scoring.errors import StartError
from scoring.log import log_event, log_exception
from scoring.settings import Settings

if TYPE_CHECKING:
    from scoring.metrics import Metrics

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_BACKLOG = 2048
_NUMERIC_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",  # joblib's, whatever n_jobs says
)
# A worker that lived longer is replaced at once, another after a pause.
_STEADY_SECONDS = 5.0
_PAUSE_SECONDS = 1.0

StartWorker = Callable[[int, int], None]  # serves in this process, given an index and a lifeline


class Supervisor:
    """Starts the workers, replaces one that dies, and ends them when it is told to."""

    def __init__(
        self,
        settings: Settings,
        sockets: Sequence[socket.socket],
        start_worker: StartWorker,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._sockets = sockets
        self._start_worker = start_worker
        self._workers: dict[int, tuple[int, float]] = {}  # by pid: its index, when it was started
        self._due: dict[int, float] = {}  # by index: when a dead worker is replaced
        self._stops = 0
        # Signals are bytes in a pipe, so that one is never missed between two looks.
        self._signals, signal_end = os.pipe()
        # Closed by the kernel when this process is gone, however it went: the workers watch it.
        self._lifeline, self._lifeline_end = os.pipe()
        os.set_blocking(signal_end, False)
        self._wakeup = signal_end

    def run(self, listening: Callable[[], None]) -> None:
        """Keep the workers running; returns when told to stop and all are gone."""
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for index in range(self._settings.workers):
            self._start(index)
        listening()
        while self._workers or (self._due and not self._stops):
            self._wait()
            self._reap()
            for index in [index for index, due in self._due.items() if due <= time.monotonic()]:
                del self._due[index]
                if not self._stops:
                    self._start(index)

    def _start(self, index: int) -> None:
        # Until the worker is known here and has handlers of its own, a signal waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            if not self._stops:
                self._fork(index)
        except OSError as error:  # out of memory or of processes: those that run go on
            self._due[index] = time.monotonic() + _PAUSE_SECONDS
            log_event("worker_not_started", worker=index, reason=error.strerror)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _fork(self, index: int) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for end in (self._signals, self._wakeup, self._lifeline_end):
                    os.close(end)
                self._start_worker(index, self._lifeline)
                code = 0
            except BaseException as error:
                log_exception("", error)
            finally:
                # A model that is still at work past the grace period would make a clean end wait.
                os._exit(code)
        self._workers[pid] = (index, time.monotonic())

    def _wait(self) -> None:
        due = min(self._due.values(), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        if select.select([self._signals], [], [], timeout)[0]:
            os.read(self._signals, 4096)

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid not in self._workers:
                continue
            index, started = self._workers.pop(pid)
            self._metrics.release(index)
            if self._stops:
                continue
            now = time.monotonic()
            # One that dies again and again must not take a whole core with it.
            self._due[index] = now if now - started > _STEADY_SECONDS else now + _PAUSE_SECONDS
            log_event("worker_died", worker=index, pid=pid, code=os.waitstatus_to_exitcode(status))

    def _stop(self, number: int, frame: object) -> None:
        """Drain at the first signal, end at once at the second."""
        self._stops += 1
        for sock in self._sockets:
            sock.close()
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if self._stops == 1 else signal.SIGKILL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service until it is told to stop."""
    started = time.perf_counter()
    arguments = _parse_arguments(argv)
    # Told to stop before there is anything to drain; process 1 of a container has no default.
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: os._exit(128 + number))
    # A worker's model runs on one thread; numeric libraries read this when first imported.
    for variable in _NUMERIC_THREADS:
        os.environ[variable] = "1"
    try:
        settings = Settings.from_environ(os.environ)
        sockets = [_bind(arguments.host, arguments.port)]
        if arguments.fd is not None:
            sockets.append(_inherit(arguments.fd))
        _serve(settings, sockets, started)
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _serve(settings: Settings, sockets: list[socket.socket], started: float) -> None:
    # Imported late: numpy and the model's runtime are slow, and a wrong setting needs neither.
    import numpy as np

    from scoring.metrics import Metrics
    from scoring.score import Scorer, inline_limit
    from scoring.telemetry import prepare
    from scoring.worker import Worker

    # An answer has null where a number is not finite; the log need not say so as well.
    np.seterr(all="ignore")
    # Once, before the fork: the workers share the model's memory, and a new one is there at once.
    scorer = Scorer.load(settings)
    contract = scorer.contract
    prepare(os.environ, contract)  # a wrong setting ends the start here, not a worker
    inline_bytes = inline_limit(scorer, settings.max_rows)
    metrics = Metrics(contract, settings.workers)
    for sock in sockets:
        _listen(sock)
        sock.setblocking(False)
    gc.collect()
    gc.freeze()

    def start_worker(index: int, lifeline: int) -> None:
        Worker(
            scorer,
            settings,
            sockets,
            index=index,
            inline_bytes=inline_bytes,
            metrics=metrics,
            lifeline=lifeline,
        ).run()

    host, port = sockets[0].getsockname()[:2]

    def listening() -> None:
        log_event(
            "listening",
            host=host,
            port=port,
            model=contract.name,
            version=contract.version,
            runtime=contract.runtime,
            workers=settings.workers,
            start_ms=round((time.perf_counter() - started) * 1000),
        )

    Supervisor(settings, sockets, start_worker, metrics).run(listening)


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
