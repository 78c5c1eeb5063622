"""MLflow's page in the foreground, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.local.tracking import MlflowTracking, database, store_folder
from scripts.settings import default_port, without_secrets
from scripts.verb import Context, Result

#: Seconds MLflow may take to come up; it imports for several on a cold disk.
START_SECONDS = 90.0


def refuse_taken(host: str, port: int) -> None:
    """UsageError if something listens on the port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"MLFLOW_PORT={port} cannot be used: {error.strerror}",
                "is `make ui` running already? Else set another MLFLOW_PORT in .env",
            ) from None


@contextmanager
def server(root: Path, host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server with all its workers, gone afterwards; its log is build/mlflow/ui.log."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{database(root)}"]
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    with (store_folder(root) / "ui.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**without_secrets(), **quiet},
            # Where it would leave files of its own beside ours.
            cwd=store_folder(root),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            for signum in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, signum)
                    process.wait(5)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue


def wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when the page answers; SlipwayError if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    # Not through a proxy that the environment may name: this is our own loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["no output"]
            raise SlipwayError(f"MLflow's server ended: {last[0]}", f"its output is in {log}")
        try:
            opener.open(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    raise SlipwayError(
        f"MLflow's page did not come up in {START_SECONDS:.0f} s", f"its output is in {log}"
    )


def refuse_unopened(context: Context) -> None:
    """UsageError if there is no registry; opens, and where needed upgrades, the one there is."""
    if not database(context.root).exists():
        raise UsageError("there is no run to show yet", "run `make train` first")
    name = context.settings.MODEL_NAME or "-"
    MlflowTracking(context.root).versions(name)


def show_runs(context: Context) -> Result:
    """Serve the page on 127.0.0.1:MLFLOW_PORT until interrupted."""
    refuse_unopened(context)
    port = context.settings.MLFLOW_PORT or default_port(context.root, offset=10000)
    # Inside a container the runner publishes the port, on the host's loopback only.
    host = "0.0.0.0" if os.environ.get("SLIPWAY_NETWORK") else "127.0.0.1"  # noqa: S104
    refuse_taken(host, port)
    with server(context.root, host, port) as process:
        console.step("starting MLflow's page")
        wait_until_up(process, port, store_folder(context.root) / "ui.log")
        console.step(f"http://127.0.0.1:{port}   (Ctrl-C ends it)")
        try:
            code = process.wait()
        except KeyboardInterrupt:
            return Result("MLflow's page is closed")
    raise SlipwayError(
        f"MLflow's server ended with code {code}",
        f"its output is in {store_folder(context.root) / 'ui.log'}",
    )
