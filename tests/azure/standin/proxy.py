"""The proxy itself: CONNECT, TLS ended with a certificate of our own, one request after another."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import sys
import threading
import time
import traceback
import uuid
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any
from urllib.parse import urlsplit

from tests.azure.standin.certificates import Certificates
from tests.azure.standin.messages import Answer, Refused, Request
from tests.azure.standin.routes import Routes
from tests.azure.standin.world import Backend, World

#: Headers of one connection, which a proxy does not pass on (RFC 9110, 7.6.1).
HOP = {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade"}
CHUNK = 1 << 16


class Body:
    """A request's body, read as it comes; `length` None means chunked."""

    def __init__(self, stream: BufferedIOBase, headers: Message) -> None:
        self.stream = stream
        self.chunked = "chunked" in (headers.get("Transfer-Encoding") or "").lower()
        self.left = 0 if self.chunked else int(headers.get("Content-Length") or 0)
        self.length = None if self.chunked else self.left
        self.ended = not self.chunked and not self.left

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, b"" at the end; all of them without a size."""
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        if self.ended:
            return b""
        if self.chunked and not self.left:
            self.left = int(self.stream.readline().split(b";")[0], 16)
            if not self.left:
                while self.stream.readline().strip():
                    pass
                self.ended = True
                return b""
        part = self.stream.read(min(size, self.left))
        if not part:
            raise ConnectionError("the client left in the middle of its body")
        self.left -= len(part)
        if self.chunked:
            if not self.left:
                self.stream.readline()
        else:
            self.ended = not self.left
        return part


class Handler(BaseHTTPRequestHandler):
    """One connection: to a proxy in the clear, or after CONNECT to the host it named."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy
    tunnel: tuple[str, int] | None = None
    backend_connection: http.client.HTTPConnection | None = None

    def log_message(self, *_: Any) -> None:
        """The calls are kept elsewhere."""

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        self.tunnel = (host.lower(), int(port))
        if not self.server.world.resolves(host.lower()):
            self.send_error(502, "There is no such host")
            return
        machine = self.server.world.machines.get(host.lower())
        if machine is not None:
            self._join(machine.get(int(port)))
            return
        backend = self.server.world.backend(host.lower())
        if backend is not None and not backend.tls and backend.prefix == "/":
            self.send_error(502, "Nothing listens on that port")
            return
        self.send_response(200, "Connection Established")
        self.end_headers()
        try:
            context = self.server.certificates.context(host.lower())
            self.connection = context.wrap_socket(self.connection, server_side=True)
        except (ssl.SSLError, OSError):
            self.close_connection = True
            return
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", 0)
        self.close_connection = False
        while not self.close_connection:
            self.handle_one_request()

    def _join(self, address: tuple[str, int] | None) -> None:
        """Let the client speak with a server of this machine, whatever they speak."""
        self.close_connection = True
        try:
            if address is None:
                raise ConnectionRefusedError
            there = socket.create_connection(address, timeout=20)
        except OSError:
            self.send_error(502, "Nothing listens on that port")
            return
        there.settimeout(None)
        self.send_response(200, "Connection Established")
        self.end_headers()
        with there:
            back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
            back.start()
            _pump(self.connection, there)
            back.join()

    def finish(self) -> None:
        if self.backend_connection is not None:
            self.backend_connection.close()
        with suppress(OSError, ValueError):
            super().finish()
        if self.tunnel is not None:
            # The server closes the socket it knows, which TLS has taken over.
            with suppress(OSError):
                self.connection.close()

    def _serve(self) -> None:
        began = time.monotonic()
        # urllib3 leaves Nagle on towards a proxy: its body waits for the head's acknowledgement.
        with suppress(OSError, AttributeError):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        place = urlsplit(self.path)
        host = self.tunnel[0] if self.tunnel else (place.hostname or "").lower()
        body = Body(self.rfile, self.headers)
        request = Request(
            method=self.command,
            host=host,
            path=re.sub("//+", "/", place.path) or "/",
            raw_query=place.query,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=b"",
        )
        world = self.server.world
        fault = world.faults.take(request)
        if fault is not None:
            time.sleep(fault.delay)
            if fault.breaks:
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            if fault.answer is not None:
                body.read()
                wrong = fault.answer
                self._send(request, wrong.answer() if isinstance(wrong, Refused) else wrong, began)
                return
        machine = world.machines.get(host)
        if machine is not None:
            address = machine.get(place.port or 80, ("", 0))
            self._pass_on(request, body, Backend(address, tls=False), began)
            return
        backend = world.backend(host)
        if backend is not None and request.path.startswith(backend.prefix):
            self._pass_on(request, body, backend, began)
            return
        if self.tunnel is None and host not in world.plain:
            body.read()
            if not world.resolves(host):
                self._send(request, Answer(502, "There is no such host"), began)
                return
            self._send(request, Answer(502, "Only HTTPS reaches Azure's own hosts"), began)
            return
        whole = Request(**{**request.__dict__, "body": body.read()})
        self._send(whole, self.server.answer(whole), began)

    def _send(self, request: Request, answer: Answer, began: float) -> None:
        content, kind = answer.encoded()
        headers = dict(answer.headers)
        names = {name.lower() for name in headers}
        if kind and "content-type" not in names:
            headers["Content-Type"] = kind
        headers.setdefault("x-ms-request-id", str(uuid.uuid4()))
        if "content-length" not in names and answer.status != 204:
            headers["Content-Length"] = str(len(content))
        self.server.world.calls.add(request, answer, began)
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _pass_on(self, request: Request, body: Body, backend: Backend, began: float) -> None:
        """Let the server behind a host answer, both bodies streamed."""
        if backend.tls != (self.tunnel is not None):
            body.read()
            self._send(request, Answer(502, "Nothing listens on that port"), began)
            return
        if backend.admit is not None:
            try:
                backend.admit(request)
            except Refused as refused:
                body.read()
                self._send(request, refused.answer(), began)
                return
        target = request.path + (f"?{request.raw_query}" if request.raw_query else "")
        # A list: a client may send a header more than once (Accept, when it pulls an image).
        kept = [(n, v) for n, v in self.headers.items() if n.lower() not in (*HOP, "expect")]
        try:
            connection = self._backend(backend)
            connection.putrequest(
                self.command, target, skip_host="host" in request.headers, skip_accept_encoding=True
            )
            for name, value in kept:
                connection.putheader(name, value)
            connection.endheaders()
            while part := body.read(CHUNK):
                connection.send(b"%x\r\n%b\r\n" % (len(part), part) if body.chunked else part)
            if body.chunked:
                connection.send(b"0\r\n\r\n")
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.backend_connection = None
            self.close_connection = True
            self._send(request, Answer(502, f"The server behind does not answer: {error}"), began)
            return
        self.server.world.calls.add(request, Answer(response.status), began)
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        if response.will_close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        chunked = response.chunked
        while part := response.read1(CHUNK):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        # read1 leaves a response open that has a length.
        response.close()

    def _backend(self, backend: Backend) -> http.client.HTTPConnection:
        """The connection behind this one: kept as long as it, and made anew where the address changed."""
        kept = self.backend_connection
        if kept is None or (kept.host, kept.port) != backend.address:
            if kept is not None:
                kept.close()
            kept = http.client.HTTPConnection(*backend.address, timeout=120)
            kept.connect()
            kept.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.backend_connection = kept
        return kept

    def __getattr__(self, name: str) -> Any:
        # The base class looks for do_GET, do_PUT and so on.
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes until it ends, and its end."""
    with suppress(OSError):
        while part := source.recv(CHUNK):
            target.sendall(part)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Proxy(ThreadingHTTPServer):
    """Listens on 127.0.0.1; `port` 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self, world: World, routes: Routes, certificates: Certificates, port: int = 0
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.world, self.routes, self.certificates = world, routes, certificates
        world.port = self.server_address[1]

    def answer(self, request: Request) -> Answer:
        """What a route answers; a bug of ours is a 500 that says so."""
        try:
            return self.routes.call(self.world, request)
        except Exception:
            traceback.print_exc()
            message = traceback.format_exc()
            return Refused(500, "StandInIsBroken", message).answer()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients come and go; anything else is ours."""
        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError | TimeoutError):
            traceback.print_exc()

    def begin(self) -> None:
        threading.Thread(target=self.serve_forever, name="stand-in", daemon=True).start()
