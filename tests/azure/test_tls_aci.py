"""HTTPS on Container Instances with certificates of the vault: made there, imported, renewed, refused."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.azure.certificates import answered_with, imported, self_signed, vault_of
from tests.azure.conftest import AzureClone
from tests.azure.shipping import package, ship

pytestmark = [pytest.mark.azure, pytest.mark.docker, pytest.mark.slow]
NAME = "kiln-tls"


@pytest.fixture(scope="module")
def clone(shared_clone: AzureClone) -> AzureClone:
    """A place, and version 1 in its registry; the tests below tell one story in order."""
    shared_clone.save(
        GRACE_SECONDS="1",
        LOG_WAIT="30",
        LOAD_DURATION="1",
        LOAD_USERS="2",
        ALLOW_HTTP="false",
    )
    shared_clone.run("provision")
    package(shared_clone, 1.0)
    ship(shared_clone)
    return shared_clone


@pytest.fixture(scope="module")
def vault(clone: AzureClone) -> str:
    """The vault; from now on a certificate in it is named."""
    clone.save(TLS_CERT_NAME=NAME)
    return vault_of(clone)


@pytest.fixture(scope="module")
def host(clone: AzureClone, vault: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The service's host, as `deploy` names it to one whose certificate is for no host."""
    self_signed(clone, vault, NAME, tmp_path_factory.mktemp("policy"))
    printed = clone.run("deploy", code=2)
    assert f"the certificate TLS_CERT_NAME={NAME} is good for no host" in printed
    found = re.search(r"names (kiln-aci-\w+\.centralus\.azurecontainer\.io)", printed)
    assert found, printed
    return found[1]


def test_neither_a_certificate_nor_plain_http(clone: AzureClone) -> None:
    printed = clone.run("deploy", code=2)
    assert "TLS_CERT_NAME is not set" in printed
    assert "ALLOW_HTTP=true" in printed
    assert not (clone.folder / "deploy-aci.json").exists()


def test_a_name_that_is_not_in_the_vault(clone: AzureClone, vault: str) -> None:
    printed = clone.run("deploy", code=2, TLS_CERT_NAME="no-such")
    assert f"TLS_CERT_NAME=no-such: the vault {vault} has no such certificate" in printed
    assert f"az keyvault certificate import --vault-name {vault} --name no-such" in printed
    assert "application/x-pem-file" in printed


def test_a_certificate_that_the_vault_signed_itself(
    clone: AzureClone, vault: str, host: str, tmp_path: Path
) -> None:
    pem = self_signed(clone, vault, NAME, tmp_path, host)
    printed = clone.run("deploy")
    record = clone.records["deploy-aci"]
    assert record["url"] == f"https://{host}:8443"
    assert "slipway/front:" in printed
    assert answered_with(clone, host, 8443) == pem
    clone.run("smoke")
    assert clone.records["smoke-aci"]["log"]["request_id"]
    clone.run("load")
    assert clone.records["load-aci"]["failures"] == 0
    assert "healthy, aci 1" in clone.run("status")
    assert "serves already" in clone.run("deploy")
    # Nothing but TLS is open to the outside.
    assert [*clone.standin.world.machines[host]] == [8443]


def test_one_for_another_host_is_refused(clone: AzureClone, vault: str, tmp_path: Path) -> None:
    imported(clone, vault, "elsewhere", tmp_path, "pfx", "*.example.com")
    printed = clone.run("deploy", code=2, TLS_CERT_NAME="elsewhere")
    assert "is good for *.example.com only" in printed


def test_the_key_is_nowhere(clone: AzureClone, vault: str) -> None:
    where = ("--vault-name", vault, "--name", NAME, "--query", "value")
    sealed = base64.b64decode(clone.az("keyvault", "secret", "show", *where))
    key, _, _ = pkcs12.load_key_and_certificates(sealed, None)
    assert key is not None
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    line = pem.splitlines()[2]
    assert len(line) == 64
    files = [*(clone.path / "build").rglob("*"), clone.standin.world.folder / "calls.jsonl"]
    assert not [file for file in files if file.is_file() and line in file.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pem", "pfx"])
def test_one_of_an_authority_of_our_own_replaces_it(
    clone: AzureClone, vault: str, host: str, tmp_path: Path, form: str
) -> None:
    pem = imported(clone, vault, f"of-our-own-{form}", tmp_path, form, host)
    # What serves does not have the new one's key, and so is not believed.
    said = clone.run("smoke", code=1, TLS_CERT_NAME=f"of-our-own-{form}")
    assert f"the certificate of https://{host}:8443 is not trusted" in said
    assert "make deploy FORCE=1" in said
    printed = clone.run("deploy", TLS_CERT_NAME=f"of-our-own-{form}")
    assert "pushing it" not in printed
    assert answered_with(clone, host, 8443) == pem
    clone.run("smoke", TLS_CERT_NAME=f"of-our-own-{form}")
