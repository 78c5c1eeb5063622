"""A fresh clone of this tree below build/test with a model room of the tests' own, run by real make."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import rooms

#: Short, because the load test itself is not what is tested here.
QUICK = {"LOAD_DURATION": "1", "LOAD_USERS": "2", "LOAD_P95_MS": "5000", "GRACE_SECONDS": "5"}


class Clone:
    """One clone and how its verbs run: `RUNNER` and, for `here`, the engine it may use."""

    def __init__(self, path: Path, runner: Mapping[str, str]) -> None:
        self.path = path
        self.runner = runner

    def environment(self, **more: str) -> dict[str, str]:
        """A terminal's environment, without what a make or a runner around the tests has set."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLIPWAY_", "MAKE", "PYTEST_"))
        }
        return {**kept, **QUICK, **self.runner, **more}

    def start(self, *goals: str, **environ: str) -> subprocess.Popen[str]:
        """Begin `make GOALS` as the leader of a process group of its own."""
        return subprocess.Popen(
            ["make", *goals],
            cwd=self.path,
            env=self.environment(**environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def make(self, *goals: str, code: int = 0, **environ: str) -> str:
        """Run make to its end, which must be with `code`; returns what it printed."""
        child = self.start(*goals, **environ)
        printed, _ = child.communicate(timeout=560)
        assert child.returncode == code, printed
        return printed

    @property
    def records(self) -> dict[str, Any]:
        return rooms.records(self.path)

    @staticmethod
    def stages(printed: str) -> list[str]:
        """The verbs that began, in order, in what a make printed."""
        lines = printed.splitlines()
        return [line.removeprefix("▸ ") for line in lines if line.startswith("▸ ")]


def lay_out(root: Path, path: Path) -> None:
    """A clone as git would make it of the tree as it stands."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if name.startswith(("model/", "data/")) or not (root / name).is_file():
            continue
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, path / name)


@contextmanager
def reachable(clone: Clone) -> Iterator[str]:
    """The service's URL from here: in the toolbox, whose ports are not the host's, on its network."""
    deployed = clone.records["deploy"]
    if deployed["inner_url"] is None or "SLIPWAY_NETWORK" not in os.environ:
        yield deployed["url"]
        return
    network = str(urlsplit(deployed["inner_url"]).hostname).removesuffix("-front")
    us = os.uname().nodename
    subprocess.run(["docker", "network", "connect", network, us], check=True)
    try:
        yield deployed["inner_url"]
    finally:
        subprocess.run(["docker", "network", "disconnect", network, us], check=True)


def _clone(root: Path, path: Path, runner: Mapping[str, str]) -> Iterator[Clone]:
    path.mkdir(parents=True)
    lay_out(root, path)
    clone = Clone(path, runner)
    yield clone
    clone.make("distclean", CONFIRM="1")


@pytest.fixture
def processes(root: Path, tmp_path: Path) -> Iterator[Clone]:
    """A clone whose service is a process; its path has a space."""
    yield from _clone(root, tmp_path / "my clone", {"RUNNER": "here", "SLIPWAY_ENGINE": "none"})


@pytest.fixture
def containers(root: Path, tmp_path: Path) -> Iterator[Clone]:
    """A clone whose verbs and service run in containers; its path has a space."""
    yield from _clone(root, tmp_path / "my clone", {"RUNNER": "container"})


class Client:
    """A keep-alive client that never retries: what it could not get answered is counted."""

    def __init__(self, url: str, body: Mapping[str, Any]) -> None:
        self.url, self.body = urlsplit(url), json.dumps(body)
        self.answered, self.failures = 0, []  # type: int, list[str]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self.url.hostname or "", self.url.port, timeout=20)
        headers = {"Content-Type": "application/json"}
        while not self._stop.is_set():
            try:
                # http.client opens a new connection only after an answer that said it would close.
                connection.request("POST", "/score", self.body, headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    self.answered += 1
                else:
                    self.failures.append(f"{answer.status} {text[:200]!r}")
            except OSError as error:
                self.failures.append(repr(error))
                connection.close()
            time.sleep(0.03)  # enough to be there at any moment, and leave the machine to the verbs
        connection.close()

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)


@contextmanager
def clients(url: str, body: Mapping[str, Any], count: int = 3) -> Iterator[list[Client]]:
    """`count` clients asking as long as the block lasts."""
    running = [Client(url, body) for _ in range(count)]
    for client in running:
        client.__enter__()
    try:
        yield running
    finally:
        for client in running:
            client.__exit__()
