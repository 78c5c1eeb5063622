"""The registry of the stand-in, with az, skopeo and the registry's own checks of tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.azure.cli import Cli, image_archive
from tests.azure.standin.access import only
from tests.azure.standin.directory import access_token, directory
from tests.azure.standin.standin import StandIn
from tests.azure.standin.world import APP_OBJECT, SUBSCRIPTION, TENANT

pytestmark = pytest.mark.azure
GROUP = "Kiln42-AML-RG"
SCOPE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
NAME = "kiln42amlcr"


@pytest.fixture(scope="module")
def cli(shared_standin: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    made = Cli(shared_standin, tmp_path_factory.mktemp("registry") / "home")
    made.az("group", "create", "-n", GROUP, "-l", "westeurope")
    made.az("acr", "create", "-g", GROUP, "-n", NAME, "--sku", "Standard")
    return made


def post(cli: Cli, path: str, **form: str) -> requests.Response:
    """Ask the registry's token service."""
    return requests.post(
        f"https://{NAME}.azurecr.io{path}",
        data={"service": f"{NAME}.azurecr.io", **form},
        proxies={"https": cli.standin.url},
        verify=str(cli.standin.world.ca_file),
        timeout=20,
    )


def exchange(cli: Cli, audience: str = "https://containerregistry.azure.net") -> requests.Response:
    """Offer a token of the directory for one of the registry."""
    world = cli.standin.world
    token, _ = access_token(world, directory(world).principals[APP_OBJECT], audience)
    return post(
        cli, "/oauth2/exchange", grant_type="access_token", tenant=TENANT, access_token=token
    )


def test_push_pull_and_what_az_sees(cli: Cli, tmp_path: Path) -> None:
    token = cli.az("acr", "login", "-n", NAME, "--expose-token")
    assert token["loginServer"] == f"{NAME}.azurecr.io"
    auth = cli.authfile(token)
    archive = image_archive(tmp_path / "tiny.tar")
    there = f"docker://{NAME}.azurecr.io/slipway/tiny:1"
    cli.run("skopeo", "copy", "--authfile", auth, f"docker-archive:{archive}", there)
    seen = json.loads(cli.run("skopeo", "inspect", "--authfile", auth, there).stdout)
    digest = seen["Digest"]
    back = f"docker://{NAME}.azurecr.io/slipway/tiny@{digest}"
    cli.run("skopeo", "copy", "--authfile", auth, back, f"dir:{tmp_path}/back")

    assert cli.az("acr", "repository", "list", "-n", NAME) == ["slipway/tiny"]
    shown = cli.az("acr", "repository", "show", "-n", NAME, "--image", "slipway/tiny:1")
    assert shown["digest"] == digest
    tags = cli.az("acr", "repository", "show-tags", "-n", NAME, "--repository", "slipway/tiny")
    assert tags == ["1"]
    listed = cli.az("acr", "manifest", "list-metadata", "-r", NAME, "-n", "slipway/tiny")
    assert listed[0]["digest"] == digest
    assert listed[0]["architecture"] == "amd64"
    missing = cli.az_fails("acr", "repository", "show", "-n", NAME, "--image", "slipway/tiny:2")
    assert "the specified tag does not exist" in missing


def test_a_role_decides(cli: Cli, tmp_path: Path) -> None:
    world = cli.standin.world
    archive = image_archive(tmp_path / "tiny.tar")
    there = f"docker://{NAME}.azurecr.io/slipway/roles:1"
    auth = cli.authfile(cli.az("acr", "login", "-n", NAME, "--expose-token"))
    cli.run("skopeo", "copy", "--authfile", auth, f"docker-archive:{archive}", there)
    try:
        only(world, APP_OBJECT, "AcrPull", SCOPE)
        cli.run("skopeo", "inspect", "--authfile", auth, there)
        push = ("skopeo", "copy", "--authfile", auth, f"docker-archive:{archive}", there + "b")
        assert "denied" in cli.fails(*push)
        # A role that says nothing of registries.
        only(world, APP_OBJECT, "Key Vault Secrets User", SCOPE)
        cli.fails("skopeo", "inspect", "--authfile", auth, there)
        assert exchange(cli).status_code == 401
    finally:
        only(world, APP_OBJECT, "Owner")


def test_nobody_else(cli: Cli, tmp_path: Path) -> None:
    wrong = {"loginServer": f"{NAME}.azurecr.io", "username": "me", "accessToken": "guess"}
    auth = cli.authfile(wrong)
    place = f"docker://{NAME}.azurecr.io/slipway/tiny:1"
    for options in (("--authfile", auth), ("--no-creds",)):
        assert "authentication required" in cli.fails("skopeo", "inspect", *options, place)


def test_a_token_for_somebody_else_is_not_exchanged(cli: Cli) -> None:
    assert exchange(cli).status_code == 200
    assert exchange(cli, "https://vault.azure.net").status_code == 401
    cli.standin.world.faults.trouble("registry denies", 1)
    refused = cli.az_fails("acr", "login", "-n", NAME, "--expose-token")
    assert "CONNECTIVITY_REFRESH_TOKEN_ERROR" in refused


def test_the_admin_user_is_off_until_it_is_on(cli: Cli) -> None:
    off = cli.az_fails("acr", "credential", "show", "-n", NAME)
    assert "to enable admin first" in off
    cli.az("acr", "update", "-n", NAME, "--admin-enabled", "true")
    given = cli.az("acr", "credential", "show", "-n", NAME)
    auth = cli.authfile(
        {
            "loginServer": f"{NAME}.azurecr.io",
            "username": given["username"],
            "accessToken": given["passwords"][0]["value"],
        }
    )
    place = f"docker://{NAME}.azurecr.io/slipway/tiny"
    cli.run("skopeo", "list-tags", "--authfile", auth, place)
    cli.az("acr", "update", "-n", NAME, "--admin-enabled", "false")
    cli.fails("skopeo", "list-tags", "--authfile", auth, place)


def test_names(cli: Cli) -> None:
    taken = cli.az("acr", "check-name", "-n", NAME.upper())
    assert taken["nameAvailable"] is False
    assert taken["reason"] == "AlreadyExists"
    assert cli.az("acr", "check-name", "-n", "kiln43amlcr")["nameAvailable"] is True
    cli.az("group", "create", "-n", "other", "-l", "westeurope")
    refused = cli.az_fails("acr", "create", "-g", "other", "-n", NAME, "--sku", "Basic")
    assert "already in use" in refused


def test_a_deleted_registry_has_no_address(cli: Cli) -> None:
    cli.az("acr", "create", "-g", GROUP, "-n", "shortlived", "--sku", "Basic")
    cli.az("acr", "delete", "-n", "shortlived", "--yes")
    said = cli.fails("skopeo", "inspect", "docker://shortlived.azurecr.io/a:1")
    assert "There is no such host" in said or "Bad Gateway" in said, said


def test_a_manifest_without_its_layers_is_refused(cli: Cli, tmp_path: Path) -> None:
    """The registry is a real one: it does not take what it cannot give back."""
    refresh = exchange(cli).json()["refresh_token"]
    scope = "repository:hollow:pull,push"
    asked: dict[str, Any] = {
        "grant_type": "refresh_token",
        "scope": scope,
        "refresh_token": refresh,
    }
    access = post(cli, "/oauth2/token", **asked).json()["access_token"]
    missing = {"mediaType": "application/octet-stream", "size": 3, "digest": "sha256:" + "0" * 64}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": missing,
        "layers": [],
    }
    answer = requests.put(
        f"https://{NAME}.azurecr.io/v2/hollow/manifests/1",
        data=json.dumps(manifest),
        headers={
            "Authorization": f"Bearer {access}",
            "Content-Type": str(manifest["mediaType"]),
        },
        proxies={"https": cli.standin.url},
        verify=str(cli.standin.world.ca_file),
        timeout=20,
    )
    assert answer.status_code == 400
    assert "BLOB_UNKNOWN" in answer.text
