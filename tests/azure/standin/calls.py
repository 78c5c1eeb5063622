"""What was asked, for tests to assert on and for people to read: never a secret."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.azure.standin.messages import Answer, Request

#: Hosts whose traffic is the service's or the blobs', too much to keep line by line.
QUIET = ("dc.services.visualstudio.com",)


@dataclass(frozen=True)
class Call:
    """One request and how it was answered."""

    at: float
    method: str
    host: str
    path: str
    query: str
    status: int
    milliseconds: float
    code: str | None

    @property
    def line(self) -> str:
        """`METHOD https://host/path?query status`."""
        query = f"?{self.query}" if self.query else ""
        return f"{self.method} https://{self.host}{self.path}{query} {self.status}"


class Calls:
    """The calls in order, in memory and in a file of JSON lines."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._file = file.open("a", buffering=1)

    def add(self, request: Request, answer: Answer, began: float) -> None:
        """Keep a call; a SAS signature in a query is left out."""
        if request.host in QUIET:
            return
        query = "&".join(
            part if not part.startswith("sig=") else "sig=..."
            for part in request.raw_query.split("&")
        )
        error = answer.body.get("error") if isinstance(answer.body, dict) else None
        code = error.get("code") if isinstance(error, dict) else None
        call = Call(
            at=round(time.time(), 3),
            method=request.method,
            host=request.host,
            path=request.path,
            query=query,
            status=answer.status,
            milliseconds=round((time.monotonic() - began) * 1000, 1),
            code=code,
        )
        with self._lock:
            self._calls.append(call)
            self._file.write(json.dumps(asdict(call)) + "\n")

    def __iter__(self) -> Iterator[Call]:
        with self._lock:
            return iter(list(self._calls))

    def __len__(self) -> int:
        return len(self._calls)

    def since(self, mark: int) -> list[Call]:
        """The calls after the first `mark` ones."""
        with self._lock:
            return self._calls[mark:]

    def close(self) -> None:
        self._file.close()
