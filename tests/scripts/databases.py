"""pypi.org and api.osv.dev on this machine: a proxy that answers in their place.

pip-audit asks PyPI at an address of its own and over TLS. So this is the HTTPS_PROXY it is given; it
opens each tunnel itself, with a certificate that REQUESTS_CA_BUNDLE has pip-audit trust.
"""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOSTS = ("pypi.org", "api.osv.dev")

#: Given a path and a body, a status and what is answered in JSON.
Answering = Callable[[str, bytes], tuple[int, Any]]


class Databases(socketserver.ThreadingTCPServer):
    """`answers` has what each host says; one that is not there refuses the tunnel."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.answers: dict[str, Answering] = {}
        self.asked: list[str] = []
        self.certificate = folder / "databases.pem"
        _write_certificate(self.certificate)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.certificate)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Tunnel(socketserver.StreamRequestHandler):
    server: Databases

    def handle(self) -> None:
        host = self.rfile.readline().split()[1].decode().partition(":")[0]
        while self.rfile.readline().strip():
            pass
        answering = self.server.answers.get(host)
        if answering is None:
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            secure = self.server.tls.wrap_socket(self.connection, server_side=True)
        except (ssl.SSLError, OSError):  # the client does not trust it
            return
        with secure, secure.makefile("rb") as stream:
            while line := stream.readline():
                path, length = line.split()[1].decode(), 0
                while header := stream.readline().strip():
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                self.server.asked.append(f"{host}{path}")
                status, content = answering(path, stream.read(length))
                body = json.dumps(content).encode()
                head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n"
                secure.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)


def _write_certificate(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "databases")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


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
