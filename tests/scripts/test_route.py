"""How requests find their way: proxies, what is near, and whom to trust."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from scripts.answers import ask
from scripts.errors import SlipwayError
from scripts.proof import is_healthy, untrusted
from scripts.route import proxy_for
from tests.azure.standin.certificates import Certificates

HOST = "kiln.westeurope.azurecontainer.io"


class Handler(BaseHTTPRequestHandler):
    """A proxy behind which every host is the same service; notes what it was asked."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.note()
        self.send_response(200)
        self.end_headers()
        context = self.server.certificates.context(self.path.partition(":")[0])
        try:
            self.connection = context.wrap_socket(self.connection, server_side=True)
        except OSError:
            self.close_connection = True
            return
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False
        while not self.close_connection:
            self.handle_one_request()

    def do_GET(self) -> None:
        self.note()
        self.answer()

    def do_POST(self) -> None:
        self.do_GET()

    def note(self) -> None:
        authorization = self.headers.get("Proxy-Authorization")
        self.server.asked.append((self.command, self.path, authorization))

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.dumps({"result": [1.0]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.certificates = Certificates(folder)
        self.asked: list[tuple[str, str, str | None]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    server = Proxy(tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, f"http://ann:pass%21@127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    monkeypatch.setenv("no_proxy", "inside.example")
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(server.certificates.ca_file))
    yield server
    server.shutdown()
    server.server_close()


CREDENTIALS = "Basic YW5uOnBhc3Mh"


def test_https_goes_through_a_tunnel(proxy: Proxy) -> None:
    answer = ask(f"https://{HOST}", {"data": [[1]]}, {})
    assert json.loads(answer.body) == {"result": [1.0]}
    assert proxy.asked == [("CONNECT", f"{HOST}:443", CREDENTIALS), ("POST", "/score", None)]


def test_http_names_the_host_to_the_proxy(proxy: Proxy) -> None:
    assert is_healthy(f"http://{HOST}:5001")
    assert proxy.asked == [("GET", f"http://{HOST}:5001/", CREDENTIALS)]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "172.17.0.3", "slipway-1a2b3c4d5e-front", "[::1]", "inside.example"],
)
def test_what_is_near_or_excepted_is_asked_straight(proxy: Proxy, host: str) -> None:
    assert proxy_for(f"http://{host}:5001") is None
    assert proxy_for(f"http://{HOST}") is not None


def test_an_untrusted_certificate_is_said_to_be_that(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name)
    with pytest.raises(SlipwayError) as error:
        ask(f"https://{HOST}", {"data": [[1]]}, {})
    assert f"the certificate of https://{HOST} is not trusted" in error.value.message
    assert "EXTRA_CA" in error.value.mend


class Answering(Handler):
    """A service that ends TLS itself."""

    def note(self) -> None:
        pass


@pytest.fixture
def service() -> Iterator[tuple[str, str]]:
    """One at https://localhost, signed by an authority nobody knows; its URL and its certificate."""
    issued = trustme.CA().issue_cert("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own = issued.cert_chain_pems[0].bytes().decode()
        yield f"https://localhost:{server.server_port}", own
        server.shutdown()


def test_a_service_is_believed_that_has_the_key_of_its_own_certificate(
    service: tuple[str, str],
) -> None:
    url, own = service
    assert ask(url, {"data": [[1]]}, {}, own).status == 200
    assert is_healthy(url, certificate=own)
    assert untrusted(url, timeout=5, certificate=own) is None
    assert not is_healthy(url)
    with pytest.raises(SlipwayError, match="is not trusted"):
        ask(url, {"data": [[1]]}, {})


def test_another_certificate_or_host_is_not_believed(service: tuple[str, str]) -> None:
    url, own = service
    other = trustme.CA().issue_cert("localhost").cert_chain_pems[0].bytes().decode()
    assert untrusted(url, timeout=5, certificate=other)
    with pytest.raises(SlipwayError) as error:
        ask(url, {"data": [[1]]}, {}, other)
    assert "make deploy FORCE=1" in error.value.mend
    elsewhere = url.replace("localhost", "127.0.0.1")
    assert "127.0.0.1" in (untrusted(elsewhere, timeout=5, certificate=own) or "")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_load_goes_the_same_way(proxy: Proxy, scheme: str, tmp_path: Path, root: Path) -> None:
    plan = {
        "url": f"{scheme}://{HOST}",
        "certificate": "",
        "headers": {},
        "users": 2,
        "seconds": 1,
        "tolerance": 0.0,
        "html": str(tmp_path / "report.html"),
        "requests": [{"name": "1 row", "weight": 1, "data": [[1]], "result": [1.0]}],
    }
    done = subprocess.run(
        [sys.executable, "-m", "scripts.swarm"],
        cwd=root,
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=60,
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["requests"] > 10, done.stderr
    assert figures["failures"] == 0, figures["reasons"]
    first = proxy.asked[0]
    connect = ("CONNECT", f"{HOST}:443", CREDENTIALS)
    straight = ("POST", f"http://{HOST}:80/score", CREDENTIALS)
    assert first == (connect if scheme == "https" else straight)
    if scheme == "https":
        assert sum(method == "CONNECT" for method, *_ in proxy.asked) <= 2
