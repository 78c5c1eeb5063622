"""The certificate a service answers HTTPS with, from the workspace's Key Vault.

A certificate there is a secret too, of the same name, which holds chain and key: PEM, or PKCS #12 in
base64 (https://learn.microsoft.com/azure/key-vault/certificates/about-certificates).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scripts.errors import UsageError
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.place import Place

if TYPE_CHECKING:
    from cryptography import x509


@dataclass(frozen=True)
class Certificate:
    """`chain` and `key` are PEM; `hosts` the names it is good for."""

    hosts: tuple[str, ...]
    chain: str
    key: str = field(repr=False)

    @property
    def thumbprint(self) -> str:
        """Tells one certificate from another."""
        return hashlib.sha256(self.chain.encode()).hexdigest()[:16]

    def host(self, azure: str) -> str:
        """The name to call the service by: Azure's own where the certificate is good for it, else the
        certificate's first, which its owner's DNS points there.
        """
        plain = [name for name in self.hosts if not name.startswith("*.")]
        parent = azure.partition(".")[2]
        if azure in plain or f"*.{parent}" in self.hosts or not plain:
            return azure
        return plain[0]


def certificate(place: Place, az: Az, name: str) -> Certificate:
    """The certificate TLS_CERT_NAME; UsageError where there is none or its key cannot be had."""
    where = ("--vault-name", place.vault, "--name", name)
    found = az.find(
        *("keyvault", "secret", "show", *where),
        *("--query", "{value: value, kind: contentType}"),
        doing=f"fetching the certificate {name} from the vault {place.vault}",
    )
    if not found:
        raise UsageError(
            f"TLS_CERT_NAME={name}: the vault {place.vault} has no such certificate",
            f"import it: az keyvault certificate import --vault-name {place.vault} --name {name}"
            " --file <certificate and key, PEM or PFX>",
        )
    try:
        return _read(str(found["value"]), str(found["kind"]))
    except (ValueError, TypeError):
        raise UsageError(
            f"TLS_CERT_NAME={name} holds no certificate with its key",
            "import one whose key may be exported (PEM or PFX) into the vault",
        ) from None


def _read(value: str, kind: str) -> Certificate:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import pkcs12
    from cryptography.x509 import load_pem_x509_certificates

    if kind == "application/x-pkcs12":
        key, first, more = pkcs12.load_key_and_certificates(base64.b64decode(value), None)
        chain = [each for each in (first, *more) if each is not None]
    else:
        data = value.encode()
        key, chain = serialization.load_pem_private_key(data, None), load_pem_x509_certificates(
            data
        )
    if key is None or not chain:
        raise ValueError("no key or no certificate")
    pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Certificate(_hosts(chain[0]), pem.decode(), private.decode())


def _hosts(found: x509.Certificate) -> tuple[str, ...]:
    from cryptography.x509 import DNSName, ExtensionNotFound, SubjectAlternativeName

    try:
        names = found.extensions.get_extension_for_class(SubjectAlternativeName)
    except ExtensionNotFound:
        return ()
    return tuple(names.value.get_values_for_type(DNSName))
