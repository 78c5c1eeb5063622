"""What is in key vaults of the stand-in, with az."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest
import requests
import trustme
from cryptography.hazmat.primitives import serialization

from tests.azure.cli import Cli
from tests.azure.standin.access import grant, only
from tests.azure.standin.directory import access_token, directory
from tests.azure.standin.standin import StandIn
from tests.azure.standin.world import APP_OBJECT, SUBSCRIPTION

pytestmark = pytest.mark.azure
GROUP = "Kiln42-AML-RG"
SCOPE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
NAME = "Kiln42-AML-KV"
HOST = "kiln42-aml-kv.vault.azure.net"


@pytest.fixture(scope="module")
def cli(shared_standin: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A vault with roles, and a caller who has those of an officer."""
    made = Cli(shared_standin, tmp_path_factory.mktemp("vault") / "home")
    made.az("group", "create", "-n", GROUP, "-l", "westeurope")
    vault = ("keyvault", "create", "-g", GROUP, "-n", NAME, "-l", "westeurope")
    made.az(*vault, "--enable-rbac-authorization", "true", "--retention-days", "7")
    for role in ("Key Vault Secrets Officer", "Key Vault Certificates Officer"):
        grant(shared_standin.world, APP_OBJECT, role, SCOPE)
    return made


def vault(cli: Cli, *arguments: str) -> tuple[str, ...]:
    return ("keyvault", *arguments, "--vault-name", NAME)


def test_a_secret_and_its_versions(cli: Cli) -> None:
    first = cli.az(*vault(cli, "secret", "set"), "-n", "scoring-key", "--value", "one")
    cli.az(*vault(cli, "secret", "set"), "-n", "scoring-key", "--value", "two", "--tags", "a=b")
    shown = cli.az(*vault(cli, "secret", "show"), "-n", "scoring-key")
    assert (shown["value"], shown["tags"]["a"]) == ("two", "b")
    assert shown["attributes"]["recoverableDays"] == 7
    assert cli.az("keyvault", "secret", "show", "--id", first["id"])["value"] == "one"
    every = cli.az(*vault(cli, "secret", "list"))
    assert [each["name"] for each in every] == ["scoring-key"]
    assert every[0].get("value") is None
    assert len(cli.az(*vault(cli, "secret", "list-versions"), "-n", "scoring-key")) == 2
    missing = cli.az_fails(*vault(cli, "secret", "show"), "-n", "no-such")
    assert (
        "(SecretNotFound) A secret with (name/id) no-such was not found in this key vault"
        in missing
    )
    disabled = ("secret", "set-attributes", "-n", "scoring-key", "--enabled", "false")
    cli.az(*vault(cli, *disabled))
    said = cli.az_fails(*vault(cli, "secret", "show"), "-n", "scoring-key")
    assert "SecretDisabled" in said
    assert b"two" not in (cli.standin.world.folder / "calls.jsonl").read_bytes()


def test_a_deleted_secret_keeps_its_name(cli: Cli) -> None:
    cli.az(*vault(cli, "secret", "set"), "-n", "soft", "--value", "x")
    cli.az(*vault(cli, "secret", "delete"), "-n", "soft")
    said = cli.az_fails(*vault(cli, "secret", "set"), "-n", "soft", "--value", "y")
    assert "ObjectIsDeletedButRecoverable" in said
    cli.az(*vault(cli, "secret", "recover"), "-n", "soft")
    assert cli.az(*vault(cli, "secret", "show"), "-n", "soft")["value"] == "x"
    cli.az(*vault(cli, "secret", "delete"), "-n", "soft")
    cli.az(*vault(cli, "secret", "purge"), "-n", "soft")
    cli.az(*vault(cli, "secret", "set"), "-n", "soft", "--value", "y")


def test_roles_decide(cli: Cli) -> None:
    world = cli.standin.world
    cli.az(*vault(cli, "secret", "set"), "-n", "roles", "--value", "x")
    try:
        only(world, APP_OBJECT, "Owner")
        said = cli.az_fails(*vault(cli, "secret", "show"), "-n", "roles")
        assert "ForbiddenByRbac" in said
        assert "Microsoft.KeyVault/vaults/secrets/getSecret/action" in said
        grant(world, APP_OBJECT, "Key Vault Secrets User", SCOPE)
        assert cli.az(*vault(cli, "secret", "show"), "-n", "roles")["value"] == "x"
        said = cli.az_fails(*vault(cli, "secret", "set"), "-n", "roles", "--value", "y")
        assert "secrets/setSecret/action" in said
    finally:
        for role in ("Key Vault Secrets Officer", "Key Vault Certificates Officer"):
            grant(world, APP_OBJECT, role, SCOPE)
    world.faults.trouble("vault knows no new roles", 1)
    assert "propagation time" in cli.az_fails(*vault(cli, "secret", "show"), "-n", "roles")
    assert cli.az(*vault(cli, "secret", "show"), "-n", "roles")["value"] == "x"


def test_who_comes_without_a_token_is_told_where_to_get_one(cli: Cli) -> None:
    def ask(**headers: str) -> requests.Response:
        return requests.get(
            f"https://{HOST}/secrets?api-version=7.4",
            headers=headers,
            proxies={"https": cli.standin.url},
            verify=str(cli.standin.world.ca_file),
            timeout=20,
        )

    answer = ask()
    assert answer.status_code == 401
    assert 'resource="https://vault.azure.net"' in answer.headers["WWW-Authenticate"]
    world = cli.standin.world
    caller = directory(world).principals[APP_OBJECT]
    for audience, status in (
        ("https://vault.azure.net", 200),
        ("https://management.azure.com", 401),
    ):
        token, _ = access_token(world, caller, audience)
        assert ask(Authorization=f"Bearer {token}").status_code == status


def test_a_certificate_made_there_has_a_secret_part(cli: Cli, tmp_path: Path) -> None:
    policy = cli.az("keyvault", "certificate", "get-default-policy")
    policy["x509CertificateProperties"]["subject"] = "CN=score.slipway.example"
    policy["secretProperties"]["contentType"] = "application/x-pem-file"
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy))
    cli.az(*vault(cli, "certificate", "create"), "-n", "made", "-p", f"@{file}")
    shown = cli.az(*vault(cli, "certificate", "show"), "-n", "made")
    assert shown["policy"]["x509CertificateProperties"]["subject"] == "CN=score.slipway.example"
    pem = cli.az(*vault(cli, "secret", "show"), "-n", "made")["value"]
    both = tmp_path / "both.pem"
    both.write_text(pem)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(both)
    # It is no secret of its own.
    names = [each["name"] for each in cli.az(*vault(cli, "secret", "list"))]
    assert "made" not in names


@pytest.mark.parametrize("form", ["pem", "pfx"])
def test_a_certificate_is_imported(cli: Cli, tmp_path: Path, form: str) -> None:
    issued = trustme.CA().issue_cert("score.slipway.example")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / f"certificate.{form}"
    file.write_bytes(text + b"".join(each.bytes() for each in issued.cert_chain_pems))
    if form == "pfx":
        made = tmp_path / "made.pfx"
        cli.run(
            *("openssl", "pkcs12", "-export", "-in", str(file), "-out", str(made)),
            *("-passout", "pass:hush"),
        )
        wrong = ("certificate", "import", "-n", form, "-f", str(made), "--password", "guess")
        assert "can not be read" in cli.az_fails(*vault(cli, *wrong))
        more = ("-f", str(made), "--password", "hush")
    else:
        # Without a policy that says so PEM is not looked for.
        without = ("certificate", "import", "-n", form, "-f", str(file))
        assert "PKCS#12" in cli.az_fails(*vault(cli, *without))
        policy = {"secretProperties": {"contentType": "application/x-pem-file"}}
        more = ("-f", str(file), "-p", json.dumps(policy))
    cli.az(*vault(cli, "certificate", "import"), "-n", form, *more)
    held = cli.az(*vault(cli, "secret", "show"), "-n", form)
    kinds = {"pem": "application/x-pem-file", "pfx": "application/x-pkcs12"}
    assert held["contentType"] == kinds[form]
    cli.az(*vault(cli, "certificate", "delete"), "-n", form)
    assert "not found" in cli.az_fails(*vault(cli, "secret", "show"), "-n", form)


def test_contents_come_back_with_the_vault_and_go_with_its_purge(cli: Cli) -> None:
    name = "short-lived-kv"
    make = ("keyvault", "create", "-g", GROUP, "-n", name, "-l", "westeurope")
    secret = ("-n", "kept", "--vault-name", name)
    cli.az(*make, "--enable-rbac-authorization", "true")
    cli.az("keyvault", "secret", "set", *secret, "--value", "x")
    cli.az("keyvault", "delete", "-n", name)
    cli.az_fails("keyvault", "secret", "show", *secret)
    cli.az("keyvault", "recover", "-n", name)
    assert cli.az("keyvault", "secret", "show", *secret)["value"] == "x"
    cli.az("keyvault", "delete", "-n", name)
    cli.az("keyvault", "purge", "-n", name)
    cli.az(*make, "--enable-rbac-authorization", "true")
    assert "SecretNotFound" in cli.az_fails("keyvault", "secret", "show", *secret)


def test_access_policies(cli: Cli) -> None:
    name = "policies-kv"
    make = ("keyvault", "create", "-g", GROUP, "-n", name, "-l", "westeurope")
    cli.az(*make, "--enable-rbac-authorization", "false", "--no-self-perms", "true")
    secret = ("-n", "a", "--vault-name", name)
    said = cli.az_fails("keyvault", "secret", "set", *secret, "--value", "x")
    assert "does not have secrets set permission on key vault" in said
    words = ("--secret-permissions", "get", "set")
    cli.az("keyvault", "set-policy", "-n", name, "--object-id", APP_OBJECT, *words)
    cli.az("keyvault", "secret", "set", *secret, "--value", "x")
    assert cli.az("keyvault", "secret", "show", *secret)["value"] == "x"
