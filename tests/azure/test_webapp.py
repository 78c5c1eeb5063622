"""App Service on the stand-in, as az sees it: real containers behind azurewebsites.net."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.azure.cli import Cli
from tests.azure.services import Word, identity, push
from tests.azure.standin.access import grant
from tests.azure.standin.standin import StandIn
from tests.azure.standin.world import APP_OBJECT, SUBSCRIPTION

pytestmark = [pytest.mark.azure, pytest.mark.docker]
GROUP = "Kiln42-AML-RG"
SCOPE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
REGISTRY = "kiln42amlcr"
APP = "kiln-scoring"
SITE = f"{SCOPE}/providers/Microsoft.Web/sites/{APP}"


class Place:
    """A group with a registry, two images in it and an identity that may pull them."""

    def __init__(self, standin: StandIn, folder: Path) -> None:
        self.cli = Cli(standin, folder / "home")
        self.world = standin.world
        self.cli.az("group", "create", "-n", GROUP, "-l", "westeurope")
        registry = self.cli.az("acr", "create", "-g", GROUP, "-n", REGISTRY, "--sku", "Standard")
        self.builds = {word: Word(folder / word, word) for word in ("one", "two")}
        self.images: dict[str, str] = {}
        for word, build in self.builds.items():
            build.run()
            self.images[word] = push(self.cli, REGISTRY, word, build)
        self.identity, self.principal = identity(
            self.cli, GROUP, "puller", ("AcrPull", registry["id"])
        )

    def deploy(self, serving: dict[str, Any], candidate: dict[str, Any], **more: Any) -> Any:
        """arm/webapp.json: the app with `serving`, then the slot with `candidate`."""
        self._fill(first=True, candidate=serving, **more)
        return self._fill(first=False, candidate=candidate, **more)

    def _fill(self, **parameters: Any) -> Any:
        """Deploy the template, its secrets in a file."""
        values = {
            "name": APP,
            "workspace": "kiln-ws",
            "identity": self.identity,
            "identityClient": self.principal.app_id,
            **parameters,
        }
        file = self.cli.home / "parameters.json"
        file.write_text(json.dumps({"parameters": {k: {"value": v} for k, v in values.items()}}))
        template = str(self.world.root / "arm" / "webapp.json")
        create = f"deployment group create -g {GROUP} -n webapp -f {template} -p @{file}"
        return self.cli.az(*create.split())

    def what(self, word: str, **settings: str) -> dict[str, Any]:
        found = {"WEBSITES_PORT": "5001", **settings}
        pairs = [{"name": name, "value": value} for name, value in found.items()]
        return {"image": self.images[word], "settings": pairs}

    def ask(self, host: str) -> requests.Response:
        return requests.get(
            f"https://{host}/",
            proxies={"https": self.cli.standin.url},
            verify=str(self.world.ca_file),
            timeout=60,
        )

    def slot(self, *command: str) -> Any:
        return self.cli.az("webapp", *command, "-g", GROUP, "-n", APP, "--slot", "staging")


@pytest.fixture(scope="module")
def place(shared_standin: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(shared_standin, tmp_path_factory.mktemp("webapp"))
    yield made
    for build in made.builds.values():
        build.remove()


@pytest.fixture(scope="module")
def hosts(place: Place) -> tuple[str, str]:
    done = place.deploy(place.what("one"), place.what("two", GREETING="hello"))
    given = done["properties"]["outputs"]
    # What the slot ran before answers until the other one does.
    _wait(lambda: place.ask(given["staging"]["value"]).text == "two hello")
    return given["host"]["value"], given["staging"]["value"]


def test_the_template_s_slots_answer_and_a_swap_exchanges_them(
    place: Place, hosts: tuple[str, str]
) -> None:
    assert hosts == (f"{APP}.azurewebsites.net", f"{APP}-staging.azurewebsites.net")
    assert [place.ask(host).text for host in hosts] == ["one ", "two hello"]
    swap = ("webapp", "deployment", "slot", "swap", "-g", GROUP, "-n", APP, "--slot", "staging")
    place.cli.az(*swap)
    assert [place.ask(host).text for host in hosts] == ["two hello", "one "]
    shown = place.cli.az("webapp", "config", "show", "-g", GROUP, "-n", APP)
    assert shown["linuxFxVersion"] == f"DOCKER|{place.images['two']}"
    settings = place.cli.az("webapp", "config", "appsettings", "list", "-g", GROUP, "-n", APP)
    assert {each["name"]: each["value"] for each in settings}["GREETING"] == "hello"
    place.cli.az(*swap)
    assert [place.ask(host).text for host in hosts] == ["one ", "two hello"]


def test_a_swap_asks_the_path_it_is_told(place: Place, hosts: tuple[str, str]) -> None:
    wanted = ("WEBSITE_SWAP_WARMUP_PING_PATH=/", "WEBSITE_SWAP_WARMUP_PING_STATUSES=418")
    place.slot("config", "appsettings", "set", "--settings", *wanted)
    swap = ("webapp", "deployment", "slot", "swap", "-g", GROUP, "-n", APP, "--slot", "staging")
    assert "did not respond to http ping" in place.cli.az_fails(*swap)
    assert place.ask(hosts[0]).text == "one "
    names = [each.partition("=")[0] for each in wanted]
    place.slot("config", "appsettings", "delete", "--setting-names", *names)


def test_a_slot_setting_stays_and_a_setting_restarts(place: Place, hosts: tuple[str, str]) -> None:
    place.slot("config", "appsettings", "set", "--slot-settings", "GREETING=mine")
    _wait(lambda: place.ask(hosts[1]).text == "two mine")
    place.cli.az(
        *("webapp", "deployment", "slot", "swap", "-g", GROUP, "-n", APP, "--slot", "staging")
    )
    assert place.ask(hosts[0]).text == "two "
    assert place.ask(hosts[1]).text.startswith("one ")
    place.cli.az(
        *("webapp", "deployment", "slot", "swap", "-g", GROUP, "-n", APP, "--slot", "staging")
    )
    place.slot("config", "appsettings", "delete", "--setting-names", "GREETING")


def test_stop_start_restart(place: Place, hosts: tuple[str, str]) -> None:
    place.slot("stop")
    assert place.ask(hosts[1]).status_code == 403
    refused = place.cli.az_fails(
        *("webapp", "deployment", "slot", "swap", "-g", GROUP, "-n", APP, "--slot", "staging")
    )
    assert "stopped state" in refused
    place.slot("start")
    assert place.ask(hosts[1]).status_code == 200
    place.slot("restart")
    assert place.ask(hosts[1]).status_code == 200
    assert place.slot("show")["state"] == "Running"


def test_an_image_that_does_not_come_is_an_application_error_and_said_in_the_log(
    place: Place, hosts: tuple[str, str], tmp_path: Path
) -> None:
    gone = place.images["two"].replace("two@", "nothing@")
    place.slot("config", "set", "--linux-fx-version", f"DOCKER|{gone}")
    _wait(lambda: place.ask(hosts[1]).status_code == 503)
    assert "Application Error" in place.ask(hosts[1]).text
    file = tmp_path / "logs.zip"
    place.cli.run(
        *("az", "webapp", "log", "download", "-g", GROUP, "-n", APP, "--slot", "staging"),
        *("--log-file", str(file)),
    )
    texts = _texts(file)
    assert "Image pull failed" in texts
    assert "not found" in texts
    assert f"Stopping site {APP}__staging because it failed during startup." in texts
    # What the container printed while it ran.
    assert "begun two" in texts
    swap = ("webapp", "deployment", "slot", "swap", "-g", GROUP, "-n", APP, "--slot", "staging")
    assert "did not respond to http ping" in place.cli.az_fails(*swap)
    assert place.ask(hosts[0]).text == "one "
    place.slot("config", "set", "--linux-fx-version", f"DOCKER|{place.images['two']}")
    _wait(lambda: place.ask(hosts[1]).status_code == 200)


def test_a_container_that_exits_or_listens_elsewhere(place: Place, hosts: tuple[str, str]) -> None:
    place.world.faults.trouble("web app crashes", 1)
    place.slot("restart")
    _wait(lambda: place.ask(hosts[1]).status_code == 503)
    log = place.cli.run(
        *("az", "rest", "--method", "post", "--url"),
        f"{SITE}/slots/staging/containerlogs?api-version=2025-05-01",
    ).stdout
    assert "has exited, failing site start" in log
    assert "crashed: this is a test" in log
    place.slot("restart")
    assert place.ask(hosts[1]).status_code == 200


def test_without_the_role_nothing_is_pulled(place: Place, hosts: tuple[str, str]) -> None:
    other, principal = identity(place.cli, GROUP, "nobody")
    place.identity, kept = other, place.identity
    place.principal, before = principal, place.principal
    try:
        place.deploy(place.what("one"), place.what("two"))
        _wait(lambda: place.ask(hosts[1]).status_code == 503)
        assert place.ask(hosts[0]).status_code == 503
    finally:
        place.identity, place.principal = kept, before
    place.deploy(place.what("one"), place.what("two"))
    _wait(lambda: [place.ask(host).status_code for host in hosts] == [200, 200])


def test_a_secret_comes_from_the_vault_by_the_identity(
    place: Place, hosts: tuple[str, str]
) -> None:
    vault = ("keyvault", "create", "-g", GROUP, "-n", "kiln-kv", "-l", "westeurope")
    made = place.cli.az(*vault, "--enable-rbac-authorization", "true")
    grant(place.world, APP_OBJECT, "Key Vault Secrets Officer", made["id"])
    place.cli.az(
        *("keyvault", "secret", "set", "--vault-name", "kiln-kv", "-n", "scoring-key"),
        *("--value", "from-the-vault"),
    )
    reference = "@Microsoft.KeyVault(SecretUri=https://kiln-kv.vault.azure.net/secrets/scoring-key)"
    # Without a role the app sees the reference itself, and Azure says why.
    place.deploy(place.what("one"), place.what("two", GREETING=reference))
    _wait(lambda: place.ask(hosts[1]).text == f"two {reference}")
    status = f"{SITE}/slots/staging/config/configreferences/appsettings?api-version=2025-05-01"
    rest = ("rest", "--method", "get", "--url", f"https://management.azure.com{status}")
    assert place.cli.az(*rest)["value"][0]["properties"]["status"] == "AccessToKeyVaultDenied"
    grant(place.world, place.principal.object_id, "Key Vault Secrets User", made["id"])
    place.slot("restart")
    _wait(lambda: place.ask(hosts[1]).text == "two from-the-vault")
    assert place.cli.az(*rest)["value"][0]["properties"]["status"] == "Resolved"
    # The settings still show the reference, never the secret.
    settings = place.slot("config", "appsettings", "list")
    assert reference in [each["value"] for each in settings]
    # Another secret is asked for when a setting changes; to start again is not enough.
    place.cli.az(
        *("keyvault", "secret", "set", "--vault-name", "kiln-kv", "-n", "scoring-key"),
        *("--value", "another"),
    )
    place.slot("stop")
    place.slot("start")
    assert place.ask(hosts[1]).text == "two from-the-vault"
    place.slot("config", "appsettings", "set", "--settings", "CHANGED=1")
    _wait(lambda: place.ask(hosts[1]).text == "two another")


def test_what_azure_refuses(place: Place, hosts: tuple[str, str]) -> None:
    site = f"https://management.azure.com{SCOPE}/providers/Microsoft.Web"

    def put(path: str, body: dict[str, Any]) -> str:
        file = place.cli.home / "body.json"
        file.write_text(json.dumps(body))
        url = f"{site}/{path}?api-version=2025-05-01"
        return place.cli.az_fails("rest", "--method", "put", "--url", url, "--body", f"@{file}")

    plan = f"{SCOPE}/providers/Microsoft.Web/serverfarms/{APP}-plan"
    body = {"location": "westeurope", "properties": {"serverFarmId": plan}}
    assert "Could not find member 'siteconfig2'" in put(
        "sites/other-app", {**body, "properties": {"siteconfig2": {}}}
    )
    wrong = {**body, "properties": {"serverFarmId": plan, "siteConfig": {"linuxFxVersion": "x"}}}
    assert "LinuxFxVersion has an invalid value" in put("sites/other-app", wrong)
    assert "not found" in put(
        "sites/other-app", {**body, "properties": {"serverFarmId": plan + "2"}}
    )
    put_plan = {"location": "westeurope", "sku": {"name": "Z9"}}
    assert "is not valid" in put("serverfarms/other", put_plan)
    taken = place.cli.az("group", "create", "-n", "another", "-l", "westeurope")
    url = f"https://management.azure.com{taken['id']}/providers/Microsoft.Web/sites/{APP}"
    file = place.cli.home / "body.json"
    file.write_text(json.dumps(body))
    refused = place.cli.az_fails(
        *("rest", "--method", "put", "--url", f"{url}?api-version=2025-05-01", "--body", f"@{file}")
    )
    assert f"Website with given name {APP} already exists." in refused


def _texts(file: Path) -> str:
    with zipfile.ZipFile(file) as archive:
        return "\n".join(archive.read(name).decode() for name in archive.namelist())


def _wait(there: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.2)
