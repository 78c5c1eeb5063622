"""Certificates of key vaults: made there or imported, each with a secret that holds chain and key.

Source: Azure/azure-rest-api-specs keyvault/data-plane (certificates.json) and the azure-cli recordings
keyvault/test_keyvault_certificate_soft_delete, test_keyvault_certificate_import.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.azure.standin.keyvault import (
    HOST,
    VERSIONS,
    Vault,
    VaultRefused,
    add_deleted,
    checked,
    enter,
    keep,
    listed,
    paged,
    parts_of,
    remove,
    secret,
    version,
    versions,
)
from tests.azure.standin.messages import Answer, Json, Request
from tests.azure.standin.shapes import ANY, TEXT, Map, Optional
from tests.azure.standin.world import World, new_id

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

SOURCE = "Azure/azure-rest-api-specs keyvault data-plane certificates.json"
RECORDED = "azure-cli recordings keyvault/test_keyvault_certificate_soft_delete"
PEM, PFX = "application/x-pem-file", "application/x-pkcs12"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass
class Pair:
    """A key, its certificate, and those above it."""

    key: Key
    certificate: x509.Certificate
    chain: list[x509.Certificate]

    def secret(self, kind: str) -> str:
        """What the certificate's secret holds: PEM text, or PKCS #12 in base64."""
        if kind == PFX:
            sealed = pkcs12.serialize_key_and_certificates(
                None, self.key, self.certificate, self.chain or None, serialization.NoEncryption()
            )
            return base64.b64encode(sealed).decode()
        key = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        chain = [
            each.public_bytes(serialization.Encoding.PEM)
            for each in (self.certificate, *self.chain)
        ]
        return b"".join((key, *chain)).decode()


def _bad(message: str) -> VaultRefused:
    return VaultRefused(400, "BadParameter", message)


def _from_pem(text: str) -> Pair:
    try:
        # Clients send it as it is or, az among them, in base64.
        data = text.encode() if "-----BEGIN" in text else base64.b64decode(text, validate=True)
        chain = x509.load_pem_x509_certificates(data)
    except ValueError:
        raise _bad(
            "The specified PEM X.509 certificate content is in an unexpected format. Please check if "
            "certificate is in valid PEM format."
        ) from None
    found = re.search(
        rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", data, re.DOTALL
    )
    if found is None:
        raise _bad(
            "Private key is not specified in the specified X.509 PEM certificate content. Please specify "
            "private key in the X.509 PEM certificate content."
        )
    key = serialization.load_pem_private_key(found[0], None)
    if b"BEGIN PRIVATE KEY" not in found[0]:
        raise _bad("The private key in the PEM content must be in PKCS #8 format.")
    return _paired(key, chain[0], chain[1:])


def _from_pfx(text: str, password: str | None) -> Pair:
    try:
        sealed = base64.b64decode(text, validate=True)
        key, certificate, chain = pkcs12.load_key_and_certificates(
            sealed, password.encode() if password else None
        )
    except ValueError:
        raise _bad(
            "The specified PKCS#12 X.509 certificate content can not be read. Please check if certificate "
            "is in valid PKCS#12 format, and the password."
        ) from None
    if certificate is None or key is None:
        raise _bad("The specified PKCS#12 content has no certificate with a private key.")
    return _paired(key, certificate, list(chain))


def _paired(key: Any, certificate: x509.Certificate, chain: list[x509.Certificate]) -> Pair:
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise _bad("The private key must be RSA or EC.")
    if key.public_key() != certificate.public_key():
        raise _bad("The private key does not belong to the certificate.")
    return Pair(key, certificate, chain)


def _made(policy: Json) -> Pair:
    """A self-signed certificate by its policy."""
    wanted = policy.get("key_props") or {}
    if wanted.get("kty", "RSA") in ("EC", "EC-HSM"):
        key: Key = ec.generate_private_key(ec.SECP256R1())
    else:
        size = wanted.get("key_size") or 2048
        if size not in (2048, 3072, 4096):
            raise _bad("Invalid key size: it must be 2048, 3072 or 4096.")
        key = rsa.generate_private_key(public_exponent=65537, key_size=size)
    properties = policy.get("x509_props") or {}
    try:
        name = x509.Name.from_rfc4514_string(properties.get("subject") or "")
    except ValueError:
        raise _bad("The X500 subject name in policy is invalid.") from None
    begin = datetime.now(UTC) - timedelta(minutes=10)
    months = properties.get("validity_months") or 12
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=months * 365.25 / 12))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
    )
    names = (properties.get("sans") or {}).get("dns_names") or []
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        builder = builder.add_extension(alternatives, critical=False)
    return Pair(key, builder.sign(key, hashes.SHA256()), [])


def _keep(vault: Vault, name: str, pair: Pair, policy: Json, body: Json) -> Json:
    """A new version of the certificate and of its secret."""
    identity = new_id().replace("-", "")
    der = pair.certificate.public_bytes(serialization.Encoding.DER)
    kind = (policy.get("secret_props") or {}).get("contentType") or PFX
    attributes = {
        **vault.attributes(body.get("attributes")),
        "nbf": int(pair.certificate.not_valid_before_utc.timestamp()),
        "exp": int(pair.certificate.not_valid_after_utc.timestamp()),
    }
    rsa_key = isinstance(pair.key, rsa.RSAPrivateKey)
    policy = {
        "id": f"{vault.uri}certificates/{name}/policy",
        "lifetime_actions": [
            {"trigger": {"lifetime_percentage": 80}, "action": {"action_type": "EmailContacts"}}
        ],
        "issuer": {"name": "Unknown"},
        **policy,
        "secret_props": {"contentType": kind},
        "key_props": {
            "exportable": True,
            "kty": "RSA" if rsa_key else "EC",
            "key_size": pair.key.key_size,
            "reuse_key": False,
        },
        "x509_props": {
            "subject": pair.certificate.subject.rfc4514_string(),
            **(policy.get("x509_props") or {}),
            "basic_constraints": {"ca": False},
        },
    }
    thumb = base64.urlsafe_b64encode(hashlib.sha1(der).digest())
    made = {
        "id": f"{vault.uri}certificates/{name}/{identity}",
        "kid": f"{vault.uri}keys/{name}/{identity}",
        "sid": f"{vault.uri}secrets/{name}/{identity}",
        "x5t": thumb.rstrip(b"=").decode(),
        "cer": base64.b64encode(der).decode(),
        "attributes": attributes,
        "tags": body.get("tags") or {},
        "policy": policy,
    }
    keep(vault, "certificates", name, made)
    held = {
        "value": pair.secret(kind),
        "contentType": kind,
        "attributes": attributes,
        "kid": made["kid"],
        "managed": True,
        "tags": made["tags"],
    }
    secret(vault, name, held, identity)
    return made


def _pending(vault: Vault, name: str, status: str) -> Json:
    shown: Json = {
        "id": f"{vault.uri}certificates/{name}/pending",
        "issuer": {"name": "Self"},
        "csr": "",
        "cancellation_requested": False,
        "status": status,
        "request_id": new_id().replace("-", ""),
    }
    if status == "completed":
        return {**shown, "target": f"{vault.uri}certificates/{name}"}
    details = (
        "Pending certificate created. Certificate request is in progress. This may take some time based "
        "on the issuer provider. Please check again later."
    )
    return {**shown, "status_details": details}


def add(parts: Parts) -> None:
    """Routes of certificates."""
    routes = parts.routes
    common = {
        "attributes": Optional(ANY),
        "tags": Optional(Map(TEXT)),
        "preserveCertOrder": Optional(ANY),
    }

    @routes.add(HOST, "GET", "/certificates", source=SOURCE, versions=VERSIONS)
    def every(world: World, request: Request, vault: str) -> Json:
        opened = enter(world, request, "certificates/list")
        kept = opened.rooms["certificates"].kept.values()
        return paged(request, [listed(each[-1]) for each in kept])

    @routes.add(HOST, "POST", "/certificates/{name}/create", source=RECORDED, versions=VERSIONS)
    def create(world: World, request: Request, vault: str, name: str) -> Answer:
        parts_of(name)
        opened = enter(world, request, "certificates/create", name)
        body = checked(request, {**common, "policy": Optional(ANY)})
        policy = body.get("policy") or {}
        issuer = (policy.get("issuer") or {}).get("name")
        if issuer != "Self":
            raise _bad(f"The issuer '{issuer}' is none that this stand-in has: Self.")
        _keep(opened, name, _made(policy), policy, body)
        return Answer(202, _pending(opened, name, "inProgress"))

    @routes.add(HOST, "GET", "/certificates/{name}/pending", source=RECORDED, versions=VERSIONS)
    def pending(world: World, request: Request, vault: str, name: str) -> Json:
        opened = enter(world, request, "certificates/get", name)
        versions(opened, "certificates", name)
        return _pending(opened, name, "completed")

    @routes.add(HOST, "POST", "/certificates/{name}/import", source=SOURCE, versions=VERSIONS)
    def imported(world: World, request: Request, vault: str, name: str) -> Json:
        parts_of(name)
        opened = enter(world, request, "certificates/import", name)
        body = checked(
            request, {**common, "value": TEXT, "pwd": Optional(TEXT), "policy": Optional(ANY)}
        )
        policy = body.get("policy") or {}
        # A file of PEM text is one only if the policy says so.
        if (policy.get("secret_props") or {}).get("contentType") == PEM:
            pair = _from_pem(body["value"])
        else:
            pair = _from_pfx(body["value"], body.get("pwd"))
        return _keep(opened, name, pair, policy, body)

    @routes.add(HOST, "GET", "/certificates/{name}/policy", source=SOURCE, versions=VERSIONS)
    def policy(world: World, request: Request, vault: str, name: str) -> Json:
        opened = enter(world, request, "certificates/get", name)
        shown: Json = version(opened, "certificates", name, "")["policy"]
        return shown

    @routes.add(HOST, "GET", "/certificates/{name}/versions", source=SOURCE, versions=VERSIONS)
    def list_versions(world: World, request: Request, vault: str, name: str) -> Json:
        opened = enter(world, request, "certificates/list", name)
        every_one = opened.rooms["certificates"].kept.get(name, [])
        return paged(request, [listed(each, newest=False) for each in every_one])

    @routes.add(
        HOST, "GET PATCH DELETE", "/certificates/{rest...}", source=RECORDED, versions=VERSIONS
    )
    def one(world: World, request: Request, vault: str, rest: str) -> Json:
        name, wanted = parts_of(rest)
        if request.method == "GET":
            opened = enter(world, request, "certificates/get", name)
            return version(opened, "certificates", name, wanted)
        if request.method == "PATCH":
            opened = enter(world, request, "certificates/update", name)
            changed = version(opened, "certificates", name, wanted)
            body = checked(request, {**common, "policy": Optional(ANY)})
            changed["attributes"] |= {**(body.get("attributes") or {}), "updated": int(time.time())}
            changed["tags"] = body.get("tags") or changed["tags"]
            return changed
        opened = enter(world, request, "certificates/delete", name)
        shown = remove(opened, "certificates", name)
        remove(opened, "secrets", name)
        return shown

    add_deleted(parts, "certificates", SOURCE)
