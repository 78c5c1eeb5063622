"""The way from here to a host: straight, or by the proxy that the environment names; and whom to trust.

HTTPS_PROXY, HTTP_PROXY and NO_PROXY are read as urllib does. What is on this machine or on a private
network (127.0.0.1, a container's address, a name without a dot) is asked straight in any case.
SSL_CERT_FILE and REQUESTS_CA_BUNDLE name certificates to trust besides the system's; a service may
have one of its own, which is trusted for it alone.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import os
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy; its credentials are empty where it asks for none."""

    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def headers(self) -> dict[str, str]:
        """What it wants to be sent along."""
        if not self.user:
            return {}
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Proxy-Authorization": f"Basic {pair}"}


def proxy_for(url: str) -> Proxy | None:
    """The proxy to ask for `url`; None to go straight."""
    place = urlsplit(url)
    host = place.hostname or ""
    if _is_near(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    address = proxies.get(place.scheme) or proxies.get("all")
    if not address:
        return None
    found = urlsplit(address if "//" in address else f"http://{address}")
    if not found.hostname:
        return None
    user, password = unquote(found.username or ""), unquote(found.password or "")
    return Proxy(found.hostname, found.port or 80, user, password)


def _is_near(host: str) -> bool:
    """Whether no proxy is on the way: this machine, or a network that is its own."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith(".localhost")


def trust(
    make: Callable[[], ssl.SSLContext] = ssl.create_default_context, certificate: str = ""
) -> ssl.SSLContext:
    """A context that checks certificates against the system's and the environment's authorities.

    `certificate` (PEM) is trusted as it is, whoever signed it: a server that has its key is the one
    meant. The host's name and the dates are checked in any case.
    """
    context = make()
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        file = os.environ.get(name)
        if file and os.path.isfile(file):
            context.load_verify_locations(cafile=file)
    if certificate:
        context.load_verify_locations(cadata=certificate)
        # Without this only what signs itself could be the end of a chain.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@dataclass
class Way:
    """A connection to the host of a URL; `target` makes of a path what a request's first line names."""

    connection: http.client.HTTPConnection
    place: SplitResult
    proxy: Proxy | None

    def request(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> None:
        """Send a request for `path` of that host."""
        target = path
        if self.proxy is not None and self.place.scheme == "http":
            target = f"http://{self.place.netloc}{path}"
            headers = {**headers, **self.proxy.headers()}
        self.connection.request(method, target, body, headers)


def way_to(url: str, timeout: float, certificate: str = "") -> Way:
    """The way to the host of `url`; nothing is sent yet. Each wait may take `timeout` seconds.

    `certificate` is what the host may answer with besides what an authority has signed (`trust`).
    """
    place, proxy = urlsplit(url), proxy_for(url)
    connection: http.client.HTTPConnection
    if place.scheme == "https":
        host, port = (proxy.host, proxy.port) if proxy else (place.hostname or "", place.port)
        context = trust(certificate=certificate)
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
        if proxy is not None:
            connection.set_tunnel(place.hostname or "", place.port or 443, proxy.headers())
    elif proxy is not None:
        connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=timeout)
    else:
        connection = http.client.HTTPConnection(place.netloc, timeout=timeout)
    return Way(connection, place, proxy)
