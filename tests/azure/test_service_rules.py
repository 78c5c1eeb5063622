"""Rules of the deployed service that are seen without Azure: az alone is played here."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure.aci import HTTP, HTTPS, ContainerInstance
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.certificate import Certificate
from scripts.platforms.azure.deployed import Kept, State
from scripts.platforms.azure.place import Place
from scripts.settings import load_settings

HOST = "kiln-aci.example.com"


def kept(number: int) -> Kept:
    settings = {"DEPLOY_CPU": "1", "DEPLOY_MEMORY_GB": "1.5"}
    return Kept(number, "wood", number, "in", "id", "image@sha256:0", None, None, "now", settings)


class Vault(Az):
    """az, as far as the service's key goes, and one container group whose ports are `port`."""

    held: str | None = "of-the-vault"
    port = HTTP

    def __call__(self, *arguments: str, stdin: str | SecretStr | None = None, **_: Any) -> Any:
        match arguments[:3]:
            case ("keyvault", "secret", "show"):
                return self.held
            case ("keyvault", "secret", "set"):
                assert isinstance(stdin, SecretStr)
                self.held = stdin.get_secret_value()
                return None
            case ("container", "show", _):
                ports = [{"port": self.port}]
                tags = State(1, 1, (kept(1),)).tags()
                return {"ipAddress": {"fqdn": HOST, "ports": ports}, "tags": tags}
        return None

    def find(self, *arguments: str, **_: Any) -> Any:
        return self(*arguments)

    def lines(self, *_: str) -> Any:
        return iter(())


def service(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> ContainerInstance:
    """A service with deployment 1."""
    values = {"ACI_DEPLOYMENT_NAME": "kiln-aci", "ALLOW_HTTP": "true", **settings}
    found = load_settings(folder, values)
    made = ContainerInstance(folder, found, Vault(found))
    made.ground.place = Place(**{field.name: field.name for field in fields(Place)})
    made.ground.telemetry = None
    monkeypatch.setattr(made, "_sample", lambda _: {})
    return made


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [("DEPLOY_MEMORY_GB", "0.25", "0.3"), ("DEPLOY_CPU", "0.505", "0.51")],
)
def test_a_size_that_container_instances_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, mend: str
) -> None:
    with pytest.raises(UsageError, match=f"{name}={value} is no multiple of") as error:
        service(tmp_path, monkeypatch, **{name: value})._check()
    assert error.value.mend == f"set {name}={mend}"


def test_who_asks_the_service_leaves_the_vaults_key_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = service(tmp_path, monkeypatch, SCORING_KEY="of-a-colleague")
    vault = asked.az
    assert isinstance(vault, Vault)
    assert asked.endpoint().headers == {"Authorization": "Bearer of-a-colleague"}
    assert vault.held == "of-the-vault"

    # A deployment gives the service this key: others must find it.
    monkeypatch.setattr(asked, "_replace", lambda seen, new, _: seen.state.begin(new).prove(2))
    asked._do(kept(2), {})
    assert vault.held == "of-a-colleague"

    without = service(tmp_path, monkeypatch)
    assert without.endpoint().headers == {"Authorization": "Bearer of-the-vault"}
    monkeypatch.setattr(Vault, "held", None)
    with pytest.raises(UsageError, match="has lost the service's key"):
        service(tmp_path, monkeypatch).endpoint()


@pytest.mark.parametrize("port", [HTTP, HTTPS])
def test_what_served_is_put_back_with_the_tls_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr(Vault, "port", port)
    ours = service(tmp_path, monkeypatch, TLS_CERT_NAME="kiln")
    now = datetime.now(UTC)
    ours.ground.certificate = Certificate("kiln", (HOST,), now, now, "chain", "key")
    made: list[tuple[int, bool]] = []
    asked: list[str] = []

    def create(_: State, new: Kept, certificate: Certificate | None) -> None:
        made.append((new.number, certificate is not None))

    def wrong(url: str, new: Kept, *_: Any) -> str | None:
        asked.append(url)
        return "answers wrong" if new.number == 2 else None

    monkeypatch.setattr(ours, "_create", create)
    monkeypatch.setattr(ours, "_proven_wrong", wrong)
    with pytest.raises(SlipwayError, match=r"answers wrong; deployment 1 .* was put back"):
        ours._do(kept(2), {})
    assert made == [(2, True), (1, port == HTTPS)]
    assert [url.rpartition(":")[2] for url in asked] == [str(HTTPS), str(port)]
