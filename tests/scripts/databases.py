"""PyPI's and OSV's databases on this machine: a proxy that answers in their place.

pip-audit asks each at an address of its own and over TLS. So this is the HTTPS_PROXY it is given; it
opens each tunnel itself, with a certificate that REQUESTS_CA_BUNDLE has pip-audit trust.
"""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

#: Given a path and a body, a status and what is answered in JSON.
Answering = Callable[[str, bytes], tuple[int, Any]]


class Databases(socketserver.ThreadingTCPServer):
    """`answers` has what PyPI and OSV say; one that is not there refuses the tunnel."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.answers: dict[str, Answering] = {}
        self.asked: list[str] = []
        self.certificate = folder / "databases.pem"
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(self.certificate)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Tunnel(socketserver.StreamRequestHandler):
    server: Databases

    def handle(self) -> None:
        host = self.rfile.readline().split()[1].decode().partition(":")[0]
        while self.rfile.readline().strip():
            pass
        name = "OSV" if ".osv." in host else "PyPI"
        answering = self.server.answers.get(name)
        if answering is None:
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.authority.issue_cert(host).configure_cert(tls)
        try:
            secure = tls.wrap_socket(self.connection, server_side=True)
        except (ssl.SSLError, OSError):  # the client does not trust it
            return
        with secure, secure.makefile("rb") as stream:
            while line := stream.readline():
                path, length = line.split()[1].decode(), 0
                while header := stream.readline().strip():
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                self.server.asked.append(f"{name}{path}")
                status, content = answering(path, stream.read(length))
                body = json.dumps(content).encode()
                head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n"
                secure.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)


@contextmanager
def serving(folder: Path) -> Iterator[Databases]:
    """The two, reached through `url` as a proxy; nobody answers until `answers` says so."""
    with Databases(folder) as databases:
        thread = threading.Thread(target=databases.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield databases
        finally:
            databases.shutdown()
            thread.join()
