"""The stand-in's own CA, and a certificate for every host that is asked for."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import trustme


class Certificates:
    """`ca_file` is what a client has to trust; it holds this CA only."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA(organization_name="Slipway's stand-in for Azure: this is not Azure")
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def context(self, host: str) -> ssl.SSLContext:
        """What ends TLS as `host`."""
        with self._lock:
            if host not in self._contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._ca.issue_cert(host).configure_cert(context)
                self._contexts[host] = context
            return self._contexts[host]
