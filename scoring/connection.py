"""One HTTP/1.1 connection, parsed by httptools: requests in, answers out, in order and within limits.

Nothing here waits: what a client has not sent yet, or not read yet, is remembered with a deadline,
and the worker's timer calls `expire()` once that is past. So slow clients cost memory, never time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

import httptools
import orjson

from scoring.errors import (
    BodyTooLarge,
    Headers,
    HeadersTooLarge,
    MalformedRequest,
    QueueFull,
    RequestError,
    TookTooLong,
    TooSlow,
)
from scoring.log import log_exception, new_request_id
from scoring.request import Request, path_of

if TYPE_CHECKING:
    from scoring.service import Service

KEEP_ALIVE_SECONDS = 75.0
_HEADER_BYTES = 65_536
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

#: What a connection is doing: nothing, receiving a head or a body, being answered, waiting for the
#: client to take an answer, or for the rest of a request that was refused before it was whole.
_IDLE, _HEAD, _BODY, _ANSWER, _WRITE, _LINGER = range(6)

STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


class Connection(asyncio.Protocol):
    """A client's connection.

    While the service drains, it stays open until one more request came, which is answered with
    Connection: close; a client that keeps connections alive sees no failed request.
    """

    __slots__ = (
        "_current",
        "_has_ended",
        "_has_left",
        "_head_bytes",
        "_is_beginning",
        "_parser",
        "_pending",
        "_phase",
        "_refusal",
        "_request",
        "_service",
        "_transport",
        "_upgrades",
        "deadline",
    )

    _transport: asyncio.Transport

    def __init__(self, service: Service) -> None:
        self._service = service
        self._phase = _IDLE
        self.deadline = perf_counter() + KEEP_ALIVE_SECONDS
        self._head_bytes = 0
        self._upgrades = False
        self._has_ended = False  # a request, in the data at hand
        self._has_left = False
        self._is_beginning = False
        # Being received; being answered; received while another was being answered.
        self._request: Request | None = None
        self._current: Request | None = None
        self._pending: deque[Request] = deque()
        # What no request can be read after, to be said once the one before has its answer.
        self._refusal: RequestError | None = None
        self._new_parser()

    def _new_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = transport  # type: ignore[assignment]
        self._service.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse what is no HTTP, and headers without end."""
        if len(data) > _HEADER_BYTES and self._phase <= _HEAD:
            end = data.find(b"\r\n\r\n")
            if not 0 <= end <= _HEADER_BYTES:
                self._refuse_connection(_headers_too_large())
                return
        self._has_ended = False
        size = self._request.size if self._request is not None else 0
        if not self._feed(data) or self._request is None:
            return
        # Headers, or what surrounds the parts of a body: extensions of chunks, trailers.
        if self._request.size == size and not self._has_ended:
            self._head_bytes += len(data)
            if self._head_bytes > _HEADER_BYTES:
                self._refuse_connection(_headers_too_large())
                return
        if self.deadline == inf and self._phase <= _BODY:
            self.deadline = perf_counter() + self._service.settings.body_timeout

    def _feed(self, data: bytes) -> bool:
        """Parse; False if that was the last of this connection."""
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                if self._phase == _LINGER:
                    self.close()
                    return False
                data = self._declined(data[upgrade.args[0] :])
            except httptools.HttpParserCallbackError as error:
                cause = error.__context__
                if isinstance(cause, RequestError):
                    self._refuse_connection(cause)
                else:
                    # A bug of ours in the midst of a request: nothing after it can be trusted.
                    log_exception("", cause or error)
                    self._transport.abort()
                return False
            except httptools.HttpParserError:
                self._refuse_connection(MalformedRequest("this is not an HTTP/1.1 request"))
                return False
        return True

    def eof_received(self) -> bool:
        """The client will send no more; whether it still waits for an answer."""
        if self._current is None:
            self.close()
            return False
        self._has_left = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed; what it asked for is not wanted any more."""
        self._service.connections.discard(self)
        left = [self._current, *self._pending, self._request]
        self._current = self._request = None
        self._pending.clear()
        for request in left:
            if request is not None and request.started and not request.is_answered:
                self._service.gone(request)

    def pause_writing(self) -> None:
        """The client does not take its answers: no further request until it does."""
        self._transport.pause_reading()
        self._phase = _WRITE
        self.deadline = perf_counter() + self._service.settings.body_timeout

    def resume_writing(self) -> None:
        """The client has taken its answers."""
        if self._transport.is_closing():
            return
        if self._phase == _LINGER:
            self._transport.resume_reading()
            return
        self._phase = _IDLE
        self._rest()
        self._go_on()

    # What the parser calls

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._request = Request()
        self._head_bytes = 0
        if self._phase <= _BODY:
            self._phase = _HEAD
            self.deadline = inf

    def on_url(self, url: bytes) -> None:
        """The target, or a part of it."""
        self._receiving().url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers after the body are dropped."""
        request = self._receiving()
        if not request.started:
            request.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The end of the headers: the request starts."""
        request, parser = self._receiving(), self._parser
        if self._phase == _LINGER:
            request.is_answered = True  # came after the last one that is
            return
        request.method = parser.get_method()
        if parser.should_upgrade():
            if request.method == b"CONNECT":
                raise MalformedRequest("this is no proxy")
            self._upgrades = True
            return
        request.keep_alive = parser.should_keep_alive()
        request.path = (
            request.url.decode("ascii") if request.url == b"/score" else path_of(request.url)
        )
        request.started = perf_counter()
        self._service.started(request)
        if self._phase == _HEAD:
            self._phase = _BODY
            self.deadline = inf
            self._check_head(request)

    def on_body(self, chunk: bytes) -> None:
        """A part of the body."""
        request = self._receiving()
        request.size += len(chunk)
        self._head_bytes = 0
        if request.is_answered or request.error is not None:
            return
        if request.size > self._service.settings.max_body_bytes:
            self._refuse(request, self._too_large())
            return
        request.held += len(chunk)
        self._service.held_bytes += len(chunk)
        if self._service.held_bytes > self._service.most_held_bytes:
            self._refuse(request, QueueFull("too many large requests at once; try again"))
        elif request.body:
            # One buffer: many small chunks, each an object, would cost a multiple of their size.
            if isinstance(request.body, bytes):
                request.body = bytearray(request.body)
            request.body += chunk
        else:
            request.body = chunk

    def on_message_complete(self) -> None:
        """The end of the request."""
        if self._upgrades:
            return
        request, self._request = self._receiving(), None
        self._has_ended = True
        if request.is_answered:
            self.close()
        elif self._phase > _BODY:
            self._pending.append(request)
        else:
            self._begin(request)

    def _receiving(self) -> Request:
        return self._request  # type: ignore[return-value]  # there between begin and complete

    # Requests

    def _check_head(self, request: Request) -> None:
        """Refuse at once what the headers alone tell, else ask for the body."""
        try:
            self._service.check_head(request)
            length = request.headers.get(b"content-length", b"0")
            if int(length) > self._service.settings.max_body_bytes:
                raise self._too_large()
        except RequestError as error:
            self._refuse(request, error)
            return
        expects = request.headers.get(b"expect", b"").lower() == b"100-continue"
        if expects and request.has_body and self._parser.get_http_version() != "1.0":
            self._transport.write(_CONTINUE)

    def _refuse(self, request: Request, error: RequestError) -> None:
        """Answer with an error: now if its body is still to come, else in its turn."""
        request.error = error
        request.body = b""
        if self._phase != _BODY or not request.has_body:
            return
        self._fail(request, error, close=True)
        if request.headers.get(b"expect", b"").lower() == b"100-continue":
            self.close()
            return
        # Closing at once would reset the connection, and a client that sends all before it looks
        # for an answer would never see it.
        self._phase = _LINGER
        self.deadline = perf_counter() + self._service.settings.body_timeout

    def _begin(self, request: Request) -> None:
        """Answer a request that is whole, at once or when the model gets to it."""
        self._phase = _ANSWER
        self._current = request
        # Only now it is ours: what its body took is the client's own time.
        request.started = perf_counter()
        self._is_beginning = True
        if request.error is not None:
            self.fail(request, request.error)
        else:
            self._service.begin(self, request)
        self._is_beginning = False
        if self._current is not None:
            # What the client sends meanwhile stays with the kernel.
            self.deadline = request.started + self._service.settings.request_timeout
            self._transport.pause_reading()

    def answer(
        self, request: Request, status: int, content: bytes, media_type: bytes | None = None
    ) -> None:
        """Send the answer to the request under way, and go on to the next."""
        self._send(request, status, content, media_type=media_type)
        self._end()

    def fail(self, request: Request, error: RequestError) -> None:
        """Send an error to the request under way, and go on to the next."""
        self._fail(request, error)
        self._end()

    def _end(self) -> None:
        self._current = None
        self._rest()
        if not self._is_beginning:
            self._go_on()

    def _go_on(self) -> None:
        """Take up what came while a request was being answered."""
        while self._pending and self._phase != _WRITE and not self._transport.is_closing():
            request = self._pending.popleft()
            try:
                self._service.check_head(request)
            except RequestError as error:
                request.error = error
            self._begin(request)
            if self._current is not None:
                return
        if self._phase == _WRITE or self._transport.is_closing():
            return
        if self._refusal is not None:
            self._refuse_connection(self._refusal)
        elif self._has_left:
            self.close()
        else:
            if self._request is not None and self._request.started:
                self._check_head(self._request)
            self._transport.resume_reading()

    def _rest(self) -> None:
        """What this connection is doing once nothing is being answered."""
        if self._phase in (_WRITE, _LINGER):
            return
        if self._request is None:
            self._phase = _IDLE
            self.deadline = perf_counter() + KEEP_ALIVE_SECONDS
        else:
            self._phase = _BODY if self._request.started else _HEAD
            self.deadline = perf_counter() + self._service.settings.body_timeout

    def _fail(self, request: Request, error: RequestError, *, close: bool = False) -> None:
        content = orjson.dumps(error.as_dict(request.id))
        self._send(request, error.status, content, error.code, error.headers, close=close)

    def _send(
        self,
        request: Request,
        status: int,
        content: bytes,
        code: str | None = None,
        headers: Headers = (),
        *,
        close: bool = False,
        media_type: bytes | None = None,
    ) -> None:
        """Write one answer and account for it."""
        if not request.keep_alive or self._service.draining:
            close = True
        head = b"%s%scontent-type: %s\r\ncontent-length: %d\r\nx-request-id: %s\r\n" % (
            STATUS_LINES[status],
            self._service.date_line,
            media_type or b"application/json",
            len(content),
            request.id.encode(),
        )
        for name, value in headers:
            head += b"%s: %s\r\n" % (name, value)
        if close:
            head += b"connection: close\r\n"
        elif b"connection" in request.headers and self._parser.get_http_version() == "1.0":
            head += b"connection: keep-alive\r\n"
        if request.method == b"HEAD":
            content = b""
        request.is_answered = True
        # Counted before it is sent, so that a worker which is killed took no answer uncounted along.
        seconds = self._service.count(request, status, code)
        self._transport.write(b"%s\r\n%s" % (head, content))
        if close and self._phase != _BODY:
            self.close()
        self._service.note(request, status, seconds)

    # The connection as a whole

    def _refuse_connection(self, error: RequestError) -> None:
        """Answer what cannot be read as a request, and close."""
        if self._transport.is_closing() or self._phase == _LINGER:
            self.close()
            return
        if self._current is not None or self._pending:
            self._refusal = error
            self._transport.pause_reading()
            return
        request = self._request or Request()
        self._request = None
        if not request.started:
            request.started = perf_counter()
            request.path = ""
            self._service.started(request)
        request.id = request.id or new_request_id()
        self._phase = _BODY  # `_send` leaves the closing to us
        self._fail(request, error, close=True)
        self.close()

    def _declined(self, rest: bytes) -> bytes:
        """The request, to be read again, as if it did not offer another protocol, and the rest.

        A server may decline that (RFC 9110, 7.8), but the parser drops the body of such a request.
        Java's client, for one, offers HTTP/2 with its first request.
        """
        request = self._receiving()
        head = [b"%s %s HTTP/1.1\r\n" % (request.method, request.url)]
        for name, value in request.headers.items():
            if name == b"connection":
                value = b"close" if b"close" in value.lower() else b"keep-alive"
            if name not in (b"upgrade", b"http2-settings"):
                head.append(b"%s: %s\r\n" % (name, value))
        self._upgrades = False
        self._new_parser()
        return b"".join(head) + b"\r\n" + rest

    def expire(self) -> None:
        """The deadline is past."""
        settings = self._service.settings
        self.deadline = inf
        if self._phase == _IDLE:
            # While draining the grace period decides instead.
            if not self._service.draining:
                self.close()
        elif self._phase in (_HEAD, _BODY):
            part = "headers" if self._phase == _HEAD else "body"
            self._refuse_connection(
                TooSlow(f"the {part} did not arrive within {settings.body_timeout:g} s")
            )
        elif self._phase == _ANSWER:
            if (request := self._current) is not None:
                self._service.give_up(request)
                self.fail(request, TookTooLong(f"no answer within {settings.request_timeout:g} s"))
        else:
            self._transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request of which nothing has come."""
        return self._phase == _IDLE

    def close(self) -> None:
        """Close as soon as what was written is sent, or when the client does not take it in time."""
        self._phase = _LINGER
        self.deadline = perf_counter() + self._service.settings.body_timeout
        self._transport.close()

    def _too_large(self) -> BodyTooLarge:
        limit = self._service.settings.max_body_bytes
        return BodyTooLarge(f"the body is larger than {limit} bytes")


def _headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"the headers are larger than {_HEADER_BYTES} bytes")
