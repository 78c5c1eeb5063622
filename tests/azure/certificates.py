"""Certificates as a team has them: signed by themselves or by an authority nobody else knows."""

from __future__ import annotations

import base64
import json
import re
import ssl
import subprocess
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import load_pem_x509_certificates

from tests.azure.conftest import AzureClone
from tests.azure.standin.access import grant
from tests.azure.standin.world import APP_OBJECT

PAGE = Path(__file__).parents[2] / "docs" / "azure.md"
PASSWORD = "open it"


def vault_of(clone: AzureClone) -> str:
    """The vault's name, in which the caller may keep certificates from now on."""
    place = clone.records["provision"]
    group = place["workspace_id"].partition("/providers/")[0]
    grant(clone.standin.world, APP_OBJECT, "Key Vault Certificates Officer", group)
    name: str = place["vault"]
    return name


def documented(clone: AzureClone, wanted: str, vault: str, name: str, folder: Path) -> str:
    """Run the command of docs/azure.md that has `wanted` in it, with files in `folder`."""
    text = "\n".join(re.findall(r"^```shell\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S))
    (line,) = [line for line in text.splitlines() if wanted in line]
    line = line.replace("MyUniqueML-AML-KV", vault).replace("diabetes-tls", name)
    done = subprocess.run(
        ["sh", "-c", line],
        env=clone.environment(PASSWORD=PASSWORD),
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def self_signed(clone: AzureClone, vault: str, name: str, folder: Path, *hosts: str) -> str:
    """One that the vault makes and signs with its own key; its PEM."""
    documented(clone, "get-default-policy", vault, name, folder)
    file = folder / "policy.json"
    policy: dict[str, Any] = json.loads(file.read_text())
    if hosts:
        policy["x509CertificateProperties"]["subjectAlternativeNames"] = {"dnsNames": [*hosts]}
    file.write_text(json.dumps(policy))
    documented(clone, "certificate create", vault, name, folder)
    return shown(clone, vault, name)


def imported(clone: AzureClone, vault: str, name: str, folder: Path, form: str, *hosts: str) -> str:
    """One of an authority of the team's own, imported as a file of that form; its PEM."""
    made = trustme.CA().issue_cert(*hosts)
    key = serialization.load_pem_private_key(made.private_key_pem.bytes(), None)
    chain = [
        each for blob in made.cert_chain_pems for each in load_pem_x509_certificates(blob.bytes())
    ]
    file = folder / f"certificate.{form}"
    if form == "pem":
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        pems = [each.public_bytes(serialization.Encoding.PEM) for each in chain]
        file.write_bytes(b"".join((text, *pems)))
    else:
        encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
        file.write_bytes(
            pkcs12.serialize_key_and_certificates(
                None, key, chain[0], chain[1:] or None, encryption  # type: ignore[arg-type]
            )
        )
    documented(clone, file.name, vault, name, folder)
    return shown(clone, vault, name)


def shown(clone: AzureClone, vault: str, name: str) -> str:
    """The certificate of a name as the vault shows it to everyone, in PEM."""
    where = ("--vault-name", vault, "--name", name)
    found = clone.az("keyvault", "certificate", "show", *where)
    return ssl.DER_cert_to_PEM_cert(base64.b64decode(found["cer"]))


def answered_with(clone: AzureClone, host: str, port: int) -> str:
    """The certificate that a host of the stand-in's ends TLS with, in PEM; nothing is checked."""
    address = clone.standin.world.machines[host][port]
    return ssl.get_server_certificate(address)
