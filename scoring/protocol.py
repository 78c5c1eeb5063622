"""uvicorn's HTTP/1.1 protocol with JSON errors, bounded headers and a drain that loses nobody."""

from __future__ import annotations

import uuid
from asyncio import TimerHandle

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from scoring.errors import HeadersTooLarge, MalformedRequest, RequestError, TooSlow
from scoring.log import log_request

_HEADER_BYTES = 65_536


class ServiceState(ServerState):
    """What a server's connections share. `header_timeout` is in seconds."""

    def __init__(self, header_timeout: float) -> None:
        super().__init__()
        self.header_timeout = header_timeout
        self.draining = False


class ScoringProtocol(HttpToolsProtocol):
    """One connection.

    While the server drains, a connection stays open until one more request came, which is answered
    with Connection: close; a client that keeps connections alive sees no failed request.
    """

    server_state: ServiceState
    _in_headers = False
    _upgrade = False
    _header_bytes = 0
    _header_timer: TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse headers without end, in size or in time."""
        self._unset_keepalive_if_required()
        self._parse(data)
        if not self._in_headers or self.transport.is_closing():
            return
        self._header_bytes += len(data)
        if self._header_bytes > _HEADER_BYTES:
            self._refuse(HeadersTooLarge(f"the headers are larger than {_HEADER_BYTES} bytes"))
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(
                self.server_state.header_timeout, self._headers_late
            )

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            except httptools.HttpParserError:
                self.send_400_response("")
                return

    def _head_without_upgrade(self) -> bytes:
        """The request's head again, but without its offer of another protocol.

        A server may decline that (RFC 9110, 7.8), but the parser drops the body of such a request.
        Java's client, for one, offers HTTP/2 with its first request.
        """
        head = [b"%s %s HTTP/1.1\r\n" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            if name == b"connection":
                value = b"close" if b"close" in value.lower() else b"keep-alive"
            if name not in (b"upgrade", b"http2-settings"):
                head.append(b"%s: %s\r\n" % (name, value))
        return b"".join(head) + b"\r\n"

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._in_headers = True
        self._upgrade = False
        self._header_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers after the body are dropped."""
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The end of the headers: the request starts."""
        self._in_headers = False
        self._stop_header_timer()
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy")
            self._upgrade = True
            return
        super().on_headers_complete()
        if self.server_state.draining:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The end of the request."""
        if not self._upgrade:
            super().on_message_complete()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client will send no more; whether it still waits for an answer."""
        waits = self.cycle is not None and not (
            self.cycle.more_body or self.cycle.response_complete
        )
        if waits:
            self.cycle.keep_alive = False
        return waits

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._stop_header_timer()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server drains: close after the present request, or else after the next."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def timeout_keep_alive_handler(self) -> None:
        """Nobody used the connection for long; while draining the grace period decides instead."""
        if not self.server_state.draining:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for what is not HTTP."""
        self._refuse(MalformedRequest("this is not an HTTP/1.1 request"))

    def _headers_late(self) -> None:
        timeout = self.server_state.header_timeout
        self._refuse(TooSlow(f"the headers did not arrive within {timeout:g} s"))

    def _refuse(self, error: RequestError) -> None:
        if self.transport.is_closing():
            return
        request_id = str(uuid.uuid4())
        content = orjson.dumps(error.as_dict(request_id))
        self.transport.write(
            b"%scontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %s\r\n"
            b"connection: close\r\n\r\n%s"
            % (STATUS_LINE[error.status], len(content), request_id.encode(), content)
        )
        self.transport.close()
        if self.cycle is not None and not self.cycle.response_complete:
            # The application logs this request, once it sees that its body will not come.
            self.cycle.scope["state"]["status"] = error.status
        else:
            log_request(request_id, error.status, 0.0)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
