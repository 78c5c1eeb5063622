"""What the service answers: POST /score, GET /, GET /swagger.json and GET /metrics.

Cheap requests are scored at once in the event loop; what takes longer goes to the model's thread.
"""

from __future__ import annotations

import asyncio
import hmac
import time
import zlib
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

import orjson

from scoring.connection import Connection
from scoring.errors import (
    BodyTooLarge,
    InternalError,
    MethodNotAllowed,
    NotFound,
    NotJson,
    QueueFull,
    RequestError,
    Unauthorized,
    UnsupportedMedia,
)
from scoring.log import RequestLog, log_exception, request_id_of, traceparent_of
from scoring.metrics import CLIENT_LEFT, CONTENT_TYPE, Metrics, WorkerMetrics
from scoring.model_thread import Job, ModelThread
from scoring.openapi import describe
from scoring.request import Request
from scoring.score import Answer, Scorer
from scoring.settings import Settings

if TYPE_CHECKING:
    from scoring.tracing import Telemetry

_BODIES = 16  # of the largest size, at once
_METHODS = {b"POST": "POST", b"GET": "GET", b"HEAD": "HEAD"}
_GZIP = 16 + zlib.MAX_WBITS
_MOST_MEMBERS = 100  # each costs a copy of what follows it


class Service:
    """One worker's answers to its connections; the event loop's own, but for `_work`."""

    def __init__(
        self,
        scorer: Scorer,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        *,
        inline_bytes: int,
        metrics: Metrics,
        counters: WorkerMetrics,
        telemetry: Telemetry | None,
    ) -> None:
        self.settings = settings
        self.connections: set[Connection] = set()
        self.draining = False
        self.date_line = b""
        #: What all requests under way hold of bodies, and how much that may be.
        self.held_bytes = 0
        self.most_held_bytes = _BODIES * settings.max_body_bytes
        self.log = RequestLog()
        self.model = ModelThread(loop, settings.queue_size, settings.queue_seconds)
        self._scorer = scorer
        self._loop = loop
        self._inline_bytes = inline_bytes
        self._metrics = metrics
        self._counters = counters
        self._telemetry = telemetry
        self._turn_began: float | None = None
        self._scrape: asyncio.Future[bytes] | None = None
        contract = scorer.contract
        health = {"status": "healthy", "model": contract.name, "version": contract.version}
        self._pages = {
            "/": orjson.dumps(health),
            "/swagger.json": orjson.dumps(describe(contract, settings)),
        }
        self.tick()

    def tick(self) -> None:
        """What is due now and then: the date, sums of the inputs, connections past their deadline."""
        now = time.time()
        self.date_line = time.strftime(
            "date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime(now)
        ).encode()
        self._counters.fold()
        present = perf_counter()
        for connection in [each for each in self.connections if each.deadline < present]:
            connection.expire()

    # A request's way

    def started(self, request: Request) -> None:
        """Its headers are complete."""
        request.id = request_id_of(request.headers)
        self._counters.began()

    def check_head(self, request: Request) -> None:
        """Raise the RequestError that the headers alone call for."""
        if request.path == "/score":
            _allow(request.method, b"POST")
            self._check_key(request)
            _check_media_type(request)
        elif request.path in self._pages or request.path == "/metrics":
            _allow(request.method, b"GET, HEAD")
            if request.path == "/metrics":
                self._check_key(request)
        else:
            raise NotFound(
                "no such path; there are POST /score, GET /, GET /swagger.json and GET /metrics"
            )

    def begin(self, connection: Connection, request: Request) -> None:
        """Answer a request that came whole, now or later, by `answer` or `fail` of its connection."""
        if request.path != "/score":
            self._show(connection, request)
            return
        content = request.content()
        if len(content) > self._inline_bytes or b"content-encoding" in request.headers:
            self._queue(connection, request, lambda: self._work(request, content))
            return
        if self._turn_began is None:
            self._turn_began = request.started
            self._loop.call_soon(self._end_turn)
        elif request.started - self._turn_began > self.settings.queue_seconds:
            # So many came at once that this one, and whoever is behind it, would wait too long.
            connection.fail(request, QueueFull("the service is busy; try again"))
            return
        try:
            answer = self._scorer.answer(content)
        except Exception as error:
            connection.fail(request, self._explained(request, error))
            return
        self._scored(connection, request, answer)

    def give_up(self, request: Request) -> None:
        """Nobody waits for its answer any more."""
        if request.job is not None:
            self.model.give_up(request.job)
            request.job = None

    def gone(self, request: Request) -> None:
        """The client left before its answer."""
        request.is_answered = True
        self.give_up(request)
        seconds = self.count(request, CLIENT_LEFT, "client_left")
        self.note(request, CLIENT_LEFT, seconds)

    def count(self, request: Request, status: int, code: str | None) -> float:
        """Count an answer; `code` is the error's, if it is one. Returns the seconds it took."""
        seconds = perf_counter() - request.started
        self.held_bytes -= request.held
        request.held = 0
        self._counters.ended(request.path, status, code, seconds, request.predictions)
        return seconds

    def note(self, request: Request, status: int, seconds: float) -> None:
        """What else is kept of an answer: its inputs, its line in the log, its trace."""
        if request.features is not None:
            self._counters.observe(request.features)
        traceparent = traceparent_of(request.headers)
        method = _METHODS.get(request.method) or request.method.decode("ascii")
        self.log.write(
            request.id,
            status,
            seconds,
            method=method,
            path=request.path,
            traceparent=traceparent,
            predictions=request.predictions,
        )
        if self._telemetry is not None:
            ended = time.time_ns()
            self._telemetry.record(
                traceparent=traceparent,
                tracestate=request.headers.get(b"tracestate", b"").decode("latin-1") or None,
                method=method,
                path=request.path,
                status=status,
                started_ns=ended - int(seconds * 1e9),
                ended_ns=ended,
                predictions=request.predictions,
                request_id=request.id,
            )

    # How

    def _show(self, connection: Connection, request: Request) -> None:
        if (page := self._pages.get(request.path)) is not None:
            connection.answer(request, 200, page)
            return
        # A scrape takes milliseconds: it must not keep the event loop from answering others.
        if self._scrape is None or self._scrape.done():
            self._counters.fold()
            self._scrape = self._loop.run_in_executor(None, self._metrics.render)

        def done(future: asyncio.Future[bytes]) -> None:
            if request.is_answered:
                return
            if (error := future.exception()) is not None:
                connection.fail(request, self._explained(request, error))
            else:
                connection.answer(request, 200, future.result(), CONTENT_TYPE.encode())

        # Who asks meanwhile shares the answer.
        self._scrape.add_done_callback(done)

    def _queue(self, connection: Connection, request: Request, work: Callable[[], Answer]) -> None:
        def done(answer: Answer, error: BaseException | None) -> None:
            request.job = None  # it holds the request: together they would outlive the answer
            if error is None:
                self._scored(connection, request, answer)
            else:
                connection.fail(request, self._explained(request, error))

        request.body = b""
        request.job = Job(work, done)
        try:
            self.model.submit(request.job)
        except QueueFull as full:
            connection.fail(request, full)

    def _work(self, request: Request, content: bytes) -> Answer:
        if b"content-encoding" in request.headers:
            content = unpack(content, self.settings.max_body_bytes)
        return self._scorer.answer(content)

    def _scored(self, connection: Connection, request: Request, answer: Answer) -> None:
        request.predictions = answer.predictions
        request.features = answer.features
        connection.answer(request, 200, answer.content)

    def _explained(self, request: Request, error: BaseException) -> RequestError:
        if isinstance(error, RequestError):
            return error
        log_exception(request.id, error)
        return InternalError("the service failed on this request; its log says why")

    def _end_turn(self) -> None:
        self._turn_began = None

    def _check_key(self, request: Request) -> None:
        key = self.settings.key
        if key is None:
            return
        scheme, _, given = request.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), key):
            raise Unauthorized("send the service's key as Authorization: Bearer <key>")


def _allow(method: bytes, allowed: bytes) -> None:
    if method not in allowed.split(b", "):
        raise MethodNotAllowed(f"only {allowed.decode()} here", allowed.decode())


def _check_media_type(request: Request) -> None:
    given = request.headers.get(b"content-type", b"")
    if given != b"application/json":
        media_type, *parameters = given.lower().split(b";")
        charset = [each.strip().replace(b'"', b"") for each in parameters if each.strip()]
        if media_type.strip() != b"application/json" or charset not in ([], [b"charset=utf-8"]):
            raise UnsupportedMedia("send Content-Type: application/json (in UTF-8)")
    if b"content-encoding" in request.headers:
        encoding = request.headers[b"content-encoding"].lower().strip()
        if encoding == b"identity":
            del request.headers[b"content-encoding"]
        elif encoding not in (b"gzip", b"x-gzip"):
            raise UnsupportedMedia("send the body as it is or with Content-Encoding: gzip")


def unpack(content: bytes, limit: int) -> bytes:
    """A gzip body unpacked, never past `limit` bytes. Raises BodyTooLarge or NotJson."""
    unpacked: list[bytes] = []
    size = 0
    while content:
        if len(unpacked) == _MOST_MEMBERS:
            raise NotJson(f"the gzip body has more than {_MOST_MEMBERS} parts")
        member = zlib.decompressobj(_GZIP)
        try:
            part = member.decompress(content, limit - size + 1)
        except zlib.error as error:
            raise NotJson(f"the body is not gzip, as its Content-Encoding says: {error}") from None
        size += len(part)
        if size > limit:
            raise BodyTooLarge(f"the body is larger than {limit} bytes once unpacked")
        if not member.eof:
            raise NotJson("the body is not gzip, as its Content-Encoding says: it ends too early")
        unpacked.append(part)
        content = member.unused_data
    return b"".join(unpacked)
