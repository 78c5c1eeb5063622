"""Whatever bytes come, the service answers below 500 or closes, and goes on as if nothing had been.

`SECONDS` is the time for all of this file; `make test-full` takes longer besides.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scoring.contract import load_contract
from scoring.errors import RequestError
from scoring.parse import RequestParser
from tests.scoring import bundles
from tests.scoring.service import Service

SECONDS = [60, pytest.param(300, marks=pytest.mark.slow)]
SHARES = {"bytes": 0.2, "requests": 0.3, "pieces": 0.2, "bodies": 0.15, "parsers": 0.075}
BODY_TIMEOUT = 1.0
GOOD = b'{"data": [[1, 2, 3]]}'
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")
_KINDS = [
    b"POST /score HTTP/1.1",
    b"GET / HTTP/1.1",
    b"GET /swagger.json HTTP/1.1",
    b"GET /metrics HTTP/1.1",
    b"HEAD / HTTP/1.0",
    b"POST http://x/score HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"PUT /%ff%00/../score?x=[] HTTP/1.1",
]
_HEADERS = [
    b"Host: x",
    b"Content-Type: application/json",
    b'content-type: Application/JSON ; charset="utf-8"',
    b"Content-Type: text/plain",
    b"Content-Encoding: gzip",
    b"Content-Encoding: identity",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: upgrade, http2-settings",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"X-Request-Id: \xff\x01 x",
    b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
    b"Authorization: Bearer \xc3\xa9",
    b"Content-Length: 5",
    b"Content-Length: 99999999999999999999",
    b"Cookie: " + b"x" * 5_000,
    b"X: " + b"x" * 70_000,
]
_BODIES = [GOOD, b"", b"{", b'{"data": [[1, 2]]}', gzip.compress(GOOD), b"\x00" * 100]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = bundles.linear_regressor(tmp_path_factory.mktemp("linear"))
    limits = {"BODY_TIMEOUT": str(BODY_TIMEOUT), "MAX_BODY_BYTES": "100000"}
    service = Service(folder, limits)
    yield service
    service.process.terminate()
    # Nor was there a failure that no client saw, in the log or on stderr.
    with pytest.raises(AssertionError, match=r"no log line with .*: b''$"):
        service.logged(event="error")
    service.stop()


@pytest.fixture(params=SECONDS)
def spend(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a property with new examples until its share of the time is over."""

    def run(name: str, strategy: Any, check: Callable[[Any], None]) -> None:
        deadline = time.monotonic() + SHARES[name] * request.param
        rounds = 0
        while rounds == 0 or time.monotonic() < deadline:
            rounds += 1

            @settings(
                max_examples=100,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )
            @given(strategy)
            def examples(value: Any) -> None:
                # The last round ends in time; a failure found is still shrunk.
                if time.monotonic() < deadline + 5:
                    check(value)

            examples()

    return run


def exchange(service: Service, pieces: Sequence[bytes], *, half_close: bool = True) -> bytes:
    """Send pieces as TCP segments of their own; all that comes until the service closes."""
    content = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):  # the service may have had enough before all was sent
            for piece in pieces:
                connection.sendall(piece)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while chunk := connection.recv(65536):
                content += chunk
    return content


def check_answers(service: Service, content: bytes) -> None:
    """No 5xx among what came, and the next client is served."""
    statuses = [int(status) for status in STATUS.findall(content)]
    assert all(status < 500 for status in statuses), content[:2000]
    assert content == b"" or content.startswith(b"HTTP/1.1 ")
    answer = service.score(GOOD)
    assert (answer.status, answer.json) == (200, {"result": [21.0]})


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, more or less well-formed."""
    body = draw(st.sampled_from(_BODIES) | st.binary(max_size=300))
    lines = [draw(st.sampled_from(_KINDS)), *draw(st.lists(st.sampled_from(_HEADERS), max_size=6))]
    match draw(st.sampled_from(["length", "chunks", "none"])):
        case "length":
            lines.append(b"Content-Length: %d" % len(body))
        case "chunks":
            lines.append(b"Transfer-Encoding: chunked")
            trailers = draw(st.sampled_from([b"", b"X: y\r\n", b"Content-Length: 3\r\n"]))
            body = chunked(body, draw(st.lists(st.integers(1, 60), max_size=20)), trailers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(body: bytes, sizes: Sequence[int], trailers: bytes = b"") -> bytes:
    parts = []
    for size in [*sizes, len(body) or 1]:
        piece, body = body[:size], body[size:]
        if piece:
            parts.append(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece))
    return b"".join(parts) + b"0\r\n" + trailers + b"\r\n"


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Some requests in a row in which a few bytes were replaced, removed or put in."""
    content = bytearray(b"".join(draw(st.lists(requests(), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.integers(0, 4))
        content[start:end] = draw(
            st.binary(max_size=4) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"\n", b":", b"\x00"])
        )
    return (
        bytes(content[: draw(st.integers(0, len(content)))])
        if draw(st.booleans())
        else bytes(content)
    )


def test_any_bytes(service: Service, spend: Callable[..., None]) -> None:
    before = warmed(service)
    anything = st.binary(max_size=2_000)
    begun = st.tuples(st.sampled_from(_KINDS), anything).map(b"\r\n".join)
    spend(
        "bytes",
        anything | begun,
        lambda content: check_answers(service, exchange(service, [content])),
    )
    assert service.memory_mb() - before < 15


def test_mutated_and_pipelined_requests(service: Service, spend: Callable[..., None]) -> None:
    before = warmed(service)
    spend(
        "requests", mutated(), lambda content: check_answers(service, exchange(service, [content]))
    )
    assert service.memory_mb() - before < 15


def warmed(service: Service) -> float:
    """Its memory once everything was used once."""
    for _ in range(200):
        service.score(GOOD)
        service.score(b'{"data": [["x", 2, 3]]}')
        service.request("GET", "/nothing")
    return service.memory_mb()


def plain(content: bytes) -> list[bytes]:
    """Answers without what differs from one time to the next."""
    content = re.sub(rb"(?m)^date: .*\r\n|^x-request-id: .*\r\n", b"", content)
    return re.sub(rb'"request_id":"[^"]*"', b"", content).split(b"HTTP/1.1 ")


def test_a_request_in_pieces_is_answered_like_the_whole(
    service: Service, spend: Callable[..., None]
) -> None:
    """Well-formed requests in a row, cut anywhere; the last one asks to close."""
    body = st.sampled_from([GOOD, b"{", b'{"data": [[1, 2]]}', b" " * 3_000])

    @st.composite
    def cases(draw: st.DrawFn) -> tuple[bytes, list[int]]:
        parts = []
        count = draw(st.integers(1, 4))
        for index in range(count):
            end = b"Connection: close\r\n" if index == count - 1 else b""
            extra = draw(st.sampled_from([b"", b"Connection: upgrade\r\nUpgrade: h2c\r\n"]))
            extra = b"" if end else extra
            if draw(st.booleans()):
                content = draw(body)
                sizes = draw(st.lists(st.integers(1, 900), max_size=5))
                head, framed = draw(
                    st.sampled_from(
                        [
                            (b"Content-Length: %d\r\n" % len(content), content),
                            (b"Transfer-Encoding: chunked\r\n", chunked(content, sizes)),
                        ]
                    )
                )
                parts.append(
                    b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    + (end + extra + head + b"\r\n" + framed)
                )
            else:
                path = draw(st.sampled_from([b"/", b"/no", b"/swagger.json"]))
                parts.append(b"GET %s HTTP/1.1\r\nHost: x\r\n%s%s\r\n" % (path, end, extra))
        whole = b"".join(parts)
        return whole, sorted(draw(st.sets(st.integers(1, len(whole) - 1), max_size=12)))

    def check(case: tuple[bytes, list[int]]) -> None:
        whole, cuts = case
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        expected = exchange(service, [whole], half_close=False)
        assert plain(exchange(service, pieces, half_close=False)) == plain(expected)
        check_answers(service, expected)

    spend("pieces", cases(), check)


_ODD_NUMBERS = """
    0 -0 1 -1 2.5 1e3 1E-3 1e308 1e309 -1e400 1e-400 0.1e1 5e-324 9007199254740993
    18446744073709551615 18446744073709551616 -9223372036854775809 123456789012345678901234567890
    00 01 .5 1. +1 - 1e 1e+ NaN Infinity true null "1" 1_0 0x1 ١
"""
_NUMBER = (
    st.sampled_from(_ODD_NUMBERS.split())
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.integers().map(str)
)
_SPACE = st.sampled_from(["", "", " ", "\n", "\t", "\r\n", "  "])
_FLAWS = ["numbers", "widths", "rows", "space", "key", "more", "end", "cut"]


@st.composite
def bodies(draw: st.DrawFn, columns: int = 3) -> bytes:
    """Rows of numbers, right or with a flaw or two: most flaws would hide what comes after them."""
    flaws = draw(st.sets(st.sampled_from(_FLAWS), max_size=2))

    def choose(flaw: str, right: st.SearchStrategy[str], wrong: st.SearchStrategy[str]) -> str:
        return draw(right | wrong if flaw in flaws else right)

    def space() -> str:
        return choose("space", _SPACE, st.sampled_from(["\x0c", "\ufeff", "\xa0"]))

    widths = st.lists(st.just(columns), min_size=1, max_size=6)
    if "widths" in flaws:
        # As many values as whole rows have, in rows that are not, among others.
        ragged = st.permutations([columns - 1, columns, columns + 1])
        widths = st.lists(st.integers(0, 4), max_size=6) | ragged
    plain_number = st.floats(-1e6, 1e6).map(repr) | st.integers(-1000, 1000).map(str)
    rows = []
    for width in draw(widths):
        cells = [space() + choose("numbers", plain_number, _NUMBER) + space() for _ in range(width)]
        row = "[" + ",".join(cells) + "]"
        wrong = st.sampled_from([f"[{row}]", row + ",", row[:-1], "[]"])
        rows.append(choose("rows", st.just(row), wrong))
    key = choose(
        "key",
        st.just("data"),
        st.sampled_from(["d\\u0061ta", "Data", "d1ata", " data", "data\\u0000", "probabilities"]),
    )
    between = space()
    data = f'"{key}"{space()}:{space()}[{between}' + f"{between},".join(rows) + f"{space()}]"
    more = st.sampled_from([f",{data}", ',"probabilities":false', ',"probabilities":1', ","])
    end = st.sampled_from(["}", " x", "\x00", "{}", "\n"])
    content = (
        f"{{{space()}{data}{choose('more', st.just(''), more)}}}{choose('end', st.just(''), end)}"
    ).encode()
    if "cut" in flaws:
        cut = draw(st.integers(0, len(content)))
        content = content[:cut] + draw(st.binary(max_size=3)) + content[cut + 1 :]
    return content


def test_mutated_json(
    service: Service, regressor: Service, classifier: Service, spend: Callable[..., None]
) -> None:
    def check(body: bytes) -> None:
        for each in (service, regressor, classifier):
            assert each.score(body).status in (200, 400, 422)

    deep = st.integers(1, 5_000).map(lambda depth: b'{"data": ' + b"[" * depth)
    nested = st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    )
    documents = st.fixed_dictionaries({"data": nested}, optional={"probabilities": nested})
    spend("bodies", bodies() | deep | documents.map(lambda each: json.dumps(each).encode()), check)
    assert service.score(GOOD).status == 200


@pytest.mark.parametrize("columns", [bundles.NUMBERS, bundles.NUMBERS[:1]], ids=["three", "one"])
def test_both_parsers_agree(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spend: Callable[..., None],
    columns: list[dict[str, Any]],
) -> None:
    """simdjson and msgspec: the same status, and the same numbers to the last bit."""
    contract = load_contract(bundles.linear_regressor(tmp_path, columns))
    quick, strict = RequestParser(contract, 100), RequestParser(contract, 100)
    monkeypatch.setattr(strict, "_parse_matrix", lambda body: None)
    ways = {"quick": 0}

    def outcome(parser: RequestParser, body: bytes) -> Any:
        try:
            request = parser.parse(body)
        except RequestError as error:
            return error.status, error.code
        assert isinstance(request.features, np.ndarray)
        assert request.features.shape == (request.rows, len(columns))
        return 200, request.features.tolist(), request.probabilities

    def check(body: bytes) -> None:
        found = outcome(quick, body)
        ways["quick"] += quick._parse_matrix(body) is not None
        assert found == outcome(strict, body)
        assert found[0] != 200 or all(math.isfinite(each) for row in found[1] for each in row)

    spend("parsers", bodies(len(columns)), check)
    assert ways["quick"] > 0
