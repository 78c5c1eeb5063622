"""One HTTP request, from its first byte to its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

import httptools

from scoring.errors import MalformedRequest, RequestError

if TYPE_CHECKING:
    from scoring.model_thread import Job
    from scoring.parse import Features


class Request:
    """One request; header names are lower-case.

    `started` is when its headers were complete, then when it had come whole.
    """

    __slots__ = (
        "body",
        "error",
        "features",
        "headers",
        "held",
        "id",
        "is_answered",
        "job",
        "keep_alive",
        "method",
        "path",
        "predictions",
        "size",
        "started",
        "url",
    )

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.method = b""
        self.path = ""
        self.id = ""
        self.body: bytes | bytearray = b""
        self.size = 0
        self.held = 0  # bytes of it in memory
        self.started = 0.0
        self.keep_alive = True
        self.is_answered = False
        self.error: RequestError | None = None
        self.job: Job | None = None
        self.predictions = 0
        self.features: Features | None = None

    @property
    def has_body(self) -> bool:
        """Whether its headers announce a body."""
        length = self.headers.get(b"content-length", b"0")
        return length.strip(b"0") != b"" or b"transfer-encoding" in self.headers

    def content(self) -> bytes:
        """The whole body."""
        return bytes(self.body)


def path_of(url: bytes) -> str:
    """The path of a request's target, decoded."""
    try:
        path = (httptools.parse_url(url).path or b"/").decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
        raise MalformedRequest("the request's target is not a URL") from None
    return unquote(path) if "%" in path else path
