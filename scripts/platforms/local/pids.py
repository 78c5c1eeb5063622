"""Processes that outlive who started them, told from others that got their number later."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path


def identity(pid: int) -> str | None:
    """What no other process with this number has: its start time; None if it does not run."""
    try:
        # After the name, which may hold anything: state is field 3, the start time field 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return None if Path("/proc/self").exists() else _asked(pid)
    except OSError:
        return None
    return None if fields[0] == "Z" else f"{boot}:{fields[19]}"


def _asked(pid: int) -> str | None:
    """The start time where there is no /proc."""
    done = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def is_running(pid: int, known: str) -> bool:
    return identity(pid) == known


def end(pid: int, known: str, grace: float) -> bool:
    """Ask a process to end, and kill it after `grace` seconds; whether it was still running."""
    if not is_running(pid, known):
        return False
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + grace
    while is_running(pid, known):
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            until += 5
        time.sleep(0.02)
    return True
