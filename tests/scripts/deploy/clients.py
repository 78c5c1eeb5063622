"""Clients as they are in production: connections kept alive, and nothing ever sent twice."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

from tests.scripts.deploy.releases import ROWS, predict


def wait_until(true: Callable[[], bool]) -> None:
    """Return once it is; fail if it is not within 40 s."""
    end = time.monotonic() + 40
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


class Clients:
    """Threads that ask all the time; `failures` holds whatever was not a right answer."""

    def __init__(self, url: str, threads: int = 6) -> None:
        self.failures: list[str] = []
        self.answers = 0
        self.versions: set[int] = set()
        self._place = urlsplit(url).netloc
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._place, timeout=30)
        body = json.dumps({"data": ROWS[:1]})
        while not self._stop.is_set():
            try:
                connection.request("POST", "/score", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                text = response.read().decode()
                if response.status != 200:
                    self.failures.append(f"{response.status} {text}")
                    continue
                version, rest = divmod(json.loads(text)["result"][0] - predict(0)[0], 100)
                if rest:
                    self.failures.append(text)
                self.versions.add(int(version))
                self.answers += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            time.sleep(0.002)
        connection.close()

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        self.wait_for_answers(20)
        return self

    def wait_for_answers(self, more: int) -> None:
        """Until so many more answers came, so that what happens next happens under load."""
        wanted, end = self.answers + more, time.monotonic() + 30
        while self.answers < wanted and not self.failures and time.monotonic() < end:
            time.sleep(0.01)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.wait_for_answers(20)
        self._stop.set()
        for thread in self._threads:
            thread.join()
