"""Memory under ten minutes of mixed load: what it was after the first minute, it is at the end."""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.scoring.service import JSON, Service, request

MINUTES = 10
GROWTH_MB = 12


def bodies(classifier: bool) -> list[bytes]:
    """Good and bad requests, small and large."""
    row = [1.5, "red", None] if classifier else [1.5, 2, 3]
    found = [json.dumps({"data": [row] * count}).encode() for count in (1, 1, 1, 100, 10_000)]
    return [*found, b"{", b'{"data": [[1, 2]]}', b'{"data": ' + b"[" * 100_000]


def load(service: Service, contents: list[bytes], until: float, seed: int) -> None:
    """One client: kept connections, new ones, and some that leave half-way."""
    random_ = random.Random(seed)
    while time.monotonic() < until:
        connection = service.connect()
        for _ in range(random_.randint(1, 50)):
            body, headers = random_.choice(contents), dict(JSON)
            if random_.random() < 0.2:
                body, headers = gzip.compress(body), headers | {"Content-Encoding": "gzip"}
            assert request(connection, "POST", "/score", body, headers).status in (
                200,
                400,
                422,
                503,
            )
            assert request(connection, "GET", "/metrics").status == 200
        if random_.random() < 0.3:
            connection.putrequest("POST", "/score")
            connection.putheader("Content-Length", "1000")
            connection.endheaders(b"x" * random_.randint(1, 900))
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["regressor", "classifier"])
def test_memory_is_flat(
    request: pytest.FixtureRequest, start: Callable[..., Service], kind: str
) -> None:
    folder: Path = request.getfixturevalue(f"{kind}_dir")
    service = start(folder, {"WORKERS": "2"})
    began = time.monotonic()
    seconds = MINUTES * 60
    seen = []
    with ThreadPoolExecutor(6) as pool:
        clients = [
            pool.submit(load, service, bodies(kind == "classifier"), began + seconds, seed)
            for seed in range(6)
        ]
        while not all(client.done() for client in clients):
            time.sleep(1)
            seen.append(service.memory_mb())
        for client in clients:
            client.result()
    tenth = len(seen) // 10
    # Highest of the first fifth against the lowest that is left at the end: no slow growth.
    assert min(seen[-tenth:]) - max(seen[: 2 * tenth]) < GROWTH_MB
    assert max(seen[-tenth:]) - max(seen[: 2 * tenth]) < 3 * GROWTH_MB
