"""The certificate a service answers HTTPS with, from the workspace's Key Vault.

A certificate there is a secret too, of the same name, which holds chain and key: PEM, or PKCS #12 in
base64 (https://learn.microsoft.com/azure/key-vault/certificates/about-certificates).

Whoever signed it, our own clients trust this very certificate, because the vault vouches for it: it was
asked for over a connection and with a login that Azure's own authorities stand behind. That is no less
than an authority's word, and so a certificate that the vault signed itself, or a company's, is
checked as well as any other. Name and dates are checked besides.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from scripts.errors import UsageError
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.key import shown
from scripts.platforms.azure.place import Place

if TYPE_CHECKING:
    from cryptography import x509

#: The last line of a certificate in PEM.
PEM_END = "-----END CERTIFICATE-----\n"


@dataclass(frozen=True)
class Certificate:
    """`chain` and `key` are PEM, the service's own certificate first; `hosts` the names it is good for."""

    name: str
    hosts: tuple[str, ...]
    begins: datetime
    ends: datetime
    chain: str
    key: str = field(repr=False)

    @property
    def own(self) -> str:
        """The service's own certificate, without those above it."""
        return self.chain.partition(PEM_END)[0] + PEM_END

    @property
    def thumbprint(self) -> str:
        """Tells one certificate from another."""
        return hashlib.sha256(self.chain.encode()).hexdigest()[:16]

    def host(self, azure: str) -> str:
        """The name to call the service by: Azure's own where the certificate is good for it, else the
        certificate's first, which its owner's DNS points there. UsageError where it has none.
        """
        parent = azure.partition(".")[2]
        if azure in self.hosts or f"*.{parent}" in self.hosts:
            return azure
        plain = [name for name in self.hosts if not name.startswith("*.")]
        if not plain:
            good = f"good for {', '.join(self.hosts)} only" if self.hosts else "good for no host"
            raise UsageError(
                f"the certificate TLS_CERT_NAME={self.name} is {good}",
                f"put one into the vault that names {azure}, or a host whose DNS points there, among"
                " its DNS names",
            )
        return plain[0]

    def check_dates(self) -> None:
        """UsageError where no client would take it now."""
        now = datetime.now(UTC)
        if self.begins <= now < self.ends:
            return
        wrong = f"ended on {self.ends:%F}" if now >= self.ends else f"begins on {self.begins:%F}"
        raise UsageError(
            f"the certificate TLS_CERT_NAME={self.name} {wrong}",
            "put a new version of it into the vault, then run `make deploy` again",
        )


def certificate(place: Place, az: Az, name: str) -> Certificate:
    """The certificate TLS_CERT_NAME; UsageError where there is none or its key cannot be had."""
    found = shown(
        place,
        az,
        name,
        "{value: value, kind: contentType}",
        doing=f"fetching the certificate {name} from the vault {place.vault}",
    )
    if not found:
        raise UsageError(
            f"TLS_CERT_NAME={name}: the vault {place.vault} has no such certificate",
            f"import one: az keyvault certificate import --vault-name {place.vault} --name {name}"
            ' --file <PFX, or PEM with --policy \'{"secretProperties": {"contentType":'
            ' "application/x-pem-file"}}\'>; or have one made: `az keyvault certificate create`'
            " (docs/azure.md)",
        )
    try:
        return _read(name, str(found["value"]), str(found["kind"]))
    except (ValueError, TypeError):
        raise UsageError(
            f"TLS_CERT_NAME={name} holds no certificate with its key",
            "put one into the vault whose key may be exported (PEM or PFX)",
        ) from None


def _read(name: str, value: str, kind: str) -> Certificate:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import pkcs12
    from cryptography.x509 import load_pem_x509_certificates

    if kind == "application/x-pkcs12":
        key, first, more = pkcs12.load_key_and_certificates(base64.b64decode(value), None)
        chain = [each for each in (first, *more) if each is not None]
    else:
        data = value.encode()
        key = serialization.load_pem_private_key(data, None)
        chain = load_pem_x509_certificates(data)
    if key is None or not chain:
        raise ValueError("no key or no certificate")
    pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    own = chain[0]
    begins, ends = own.not_valid_before_utc, own.not_valid_after_utc
    return Certificate(name, _hosts(own), begins, ends, pem.decode(), private.decode())


def _hosts(found: x509.Certificate) -> tuple[str, ...]:
    from cryptography.x509 import DNSName, ExtensionNotFound, SubjectAlternativeName

    try:
        names = found.extensions.get_extension_for_class(SubjectAlternativeName)
    except ExtensionNotFound:
        return ()
    return tuple(names.value.get_values_for_type(DNSName))
