"""Rules of the deployed service that are seen without Azure: az alone is played here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from pydantic import SecretStr

from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure import service as module
from scripts.platforms.azure.aci import HTTP, HTTPS, ContainerInstance
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.certificate import Certificate
from scripts.platforms.azure.deployed import Kept, State
from scripts.platforms.azure.ground import Ground
from scripts.platforms.azure.place import Place
from scripts.platforms.base import Image, Release
from scripts.settings import load_settings

HOST = "kiln-aci.example.com"


def kept(number: int) -> Kept:
    settings = {"DEPLOY_CPU": "1", "DEPLOY_MEMORY_GB": "1.5"}
    return Kept(number, "wood", number, "in", "id", "image@sha256:0", None, None, "now", settings)


class Vault(Az):
    """az, as far as the service's key goes, and one container group whose ports are `port`."""

    held: str | None = "of-the-vault"
    port = HTTP
    state = State(1, 1, (kept(1),))

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
                return {"ipAddress": {"fqdn": HOST, "ports": ports}, "tags": self.state.tags()}
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
    place = Place(**{field.name: field.name for field in fields(Place)})
    monkeypatch.setattr(Ground, "place", place)
    monkeypatch.setattr(Ground, "telemetry", None)
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
def test_what_served_is_put_back_with_the_tls_and_the_key_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr(Vault, "port", port)
    ours = service(tmp_path, monkeypatch, TLS_CERT_NAME="kiln", SCORING_KEY="of-the-new-one")
    now = datetime.now(UTC)
    ours.ground.certificate = Certificate("kiln", (HOST,), now, now, "chain", "key")
    made: list[tuple[int, bool, str]] = []
    asked: list[str] = []

    def create(_: State, new: Kept, certificate: Certificate | None) -> None:
        made.append((new.number, certificate is not None, ours.ground.key))

    def wrong(url: str, new: Kept, *_: Any) -> str | None:
        asked.append(url)
        return "answers wrong" if new.number == 2 else None

    monkeypatch.setattr(ours, "_create", create)
    monkeypatch.setattr(ours, "_proven_wrong", wrong)
    with pytest.raises(SlipwayError, match=r"answers wrong; deployment 1 .* was put back"):
        ours._do(kept(2), {})
    assert made == [(2, True, "of-the-new-one"), (1, port == HTTPS, "of-the-vault")]
    assert isinstance(ours.az, Vault)
    assert ours.az.held == "of-the-vault"
    assert [url.rpartition(":")[2] for url in asked] == [str(HTTPS), str(port)]


class Lock:
    """The lease: what another machine does before we have it, and whether it is then lost."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)
    lost = False

    @contextmanager
    def __call__(self, _: Any, name: str, *__: Any) -> Iterator[Callable[[], None]]:
        assert name == "deploy-aci-kiln-aci"
        self.meanwhile()
        yield self.check

    def check(self) -> None:
        if self.lost:
            raise SlipwayError("the lock was lost", "run the verb again")


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Lock:
    held = Lock()
    monkeypatch.setattr(module, "open_workspace", MagicMock())
    monkeypatch.setattr(module, "leased", held)
    monkeypatch.setattr(module, "is_healthy", lambda *_, **__: True)
    return held


def test_a_deployment_goes_on_from_what_another_machine_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: Lock
) -> None:
    ours = service(tmp_path, monkeypatch)
    release = Release("wood", 3, "in", tmp_path, Image("id", "wood:3", 0, {}, "sha256:3"))
    begun: list[tuple[int, int | None]] = []

    def put(seen: module.Seen, new: Kept, _: Any) -> State:
        begun.append((new.number, new.previous))
        return seen.state.begin(new).prove(new.number)

    def other(rejected: int | None) -> Callable[[], None]:
        theirs = replace(kept(2), rejected=rejected)
        return lambda: monkeypatch.setattr(Vault, "state", State(2, 2, (theirs, kept(1))))

    monkeypatch.setattr(ours, "_replace", put)
    assert ours.current(release) is None
    lock.meanwhile = other(None)
    ours.deploy(release, {})
    assert begun == [(3, 2)]

    # Who rolled that very version back did not do it for us to bring it again.
    monkeypatch.setattr(Vault, "state", State(1, 1, (kept(1),)))
    again = service(tmp_path, monkeypatch)
    monkeypatch.setattr(again, "_replace", put)
    assert again.current(release) is None
    lock.meanwhile = other(3)
    with pytest.raises(SlipwayError, match="another machine was faster: version 3 was rolled back"):
        again.deploy(release, {})
    assert begun == [(3, 2)]


def test_two_people_roll_one_version_back_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: Lock
) -> None:
    second = replace(kept(2), previous=1)
    monkeypatch.setattr(Vault, "state", State(2, 2, (second, kept(1))))
    ours = service(tmp_path, monkeypatch)
    monkeypatch.setattr(ours, "_replace", lambda *_: pytest.fail("it was changed"))
    third = replace(kept(3), version=1)
    lock.meanwhile = lambda: monkeypatch.setattr(
        Vault, "state", State(3, 3, (third, second, kept(1)))
    )
    with pytest.raises(SlipwayError, match="another machine was faster"):
        ours.rollback()


def test_nothing_is_put_back_over_another_machines_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: Lock
) -> None:
    ours = service(tmp_path, monkeypatch)
    release = Release("wood", 2, "in", tmp_path, Image("id", "wood:2", 0, {}, "sha256:2"))
    made: list[int] = []

    def healthy(*_: Any, **__: Any) -> bool:
        lock.lost = True
        return False

    monkeypatch.setattr(module, "wait_healthy", healthy)
    monkeypatch.setattr(ours, "_create", lambda _, new, __: made.append(new.number))
    with pytest.raises(SlipwayError, match="the lock was lost"):
        ours.deploy(release, {})
    assert made == [2]
