"""Container groups of the stand-in, with az and containers that really run."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.azure.cli import Cli
from tests.azure.images import server_image
from tests.azure.standin.access import ASSIGNMENT, grant
from tests.azure.standin.directory import directory
from tests.azure.standin.resources import of_type
from tests.azure.standin.standin import StandIn
from tests.azure.standin.world import SUBSCRIPTION

pytestmark = [pytest.mark.azure, pytest.mark.docker]
GROUP = "Kiln42-AML-RG"
SCOPE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
SERVER = "kiln42amlcr.azurecr.io"
IDENTITY = f"{SCOPE}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller"
HOST = "kiln-aci.westeurope.azurecontainer.io"


class Azure(Cli):
    """A group with a registry, an image in it, and an identity that may pull."""

    image: str
    definition: Path

    def ask(self, path: str = "/", port: int = 5001, host: str = HOST) -> requests.Response:
        proxies = {"http": self.standin.url, "https": self.standin.url}
        return requests.get(f"http://{host}:{port}{path}", proxies=proxies, timeout=10)

    def answers(self, path: str = "/") -> requests.Response:
        """The first answer of the group itself, which its readiness lets through."""
        end = time.monotonic() + 20
        while (answer := self.ask(path)).status_code == 502 and time.monotonic() < end:
            time.sleep(0.2)
        return answer

    def until(self, state: str, name: str = "kiln-aci", seconds: float = 20) -> Any:
        """The group once its first container is in that state."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            shown = self.az("container", "show", "-g", GROUP, "-n", name)
            view = shown["containers"][0]["instanceView"]
            if state in (view["currentState"]["state"], view["currentState"]["detailStatus"]):
                return shown
            time.sleep(0.3)
        raise AssertionError(f"never {state}: {view}")

    def write(self, **changed: Any) -> str:
        """A definition for `az container create --file`: `changed` replaces parts of the container."""
        container: dict[str, Any] = {
            "image": self.image,
            "ports": [{"port": 5001}],
            "resources": {"requests": {"cpu": 1, "memoryInGB": 1.0}},
            "environmentVariables": [
                {"name": "PLAIN", "value": "seen"},
                {"name": "SCORING_KEY", "secureValue": "hush-hush"},
            ],
            "readinessProbe": {"httpGet": {"path": "/health", "port": 5001}, "periodSeconds": 1},
            **changed.pop("container", {}),
        }
        body = {
            "location": "westeurope",
            "identity": {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}},
            "properties": {
                "osType": "Linux",
                "containers": [{"name": "scoring", "properties": container}],
                "imageRegistryCredentials": [{"server": SERVER, "identity": IDENTITY}],
                "ipAddress": {
                    "type": "Public",
                    "dnsNameLabel": "kiln-aci",
                    "ports": [{"port": 5001}],
                },
                **changed,
            },
        }
        self.definition.write_text(json.dumps(body))
        return str(self.definition)

    def create(self, name: str = "kiln-aci", **changed: Any) -> Any:
        return self.az("container", "create", "-g", GROUP, "-n", name, "-f", self.write(**changed))

    def refused(self, name: str = "kiln-aci", **changed: Any) -> str:
        file = self.write(**changed)
        return self.az_fails("container", "create", "-g", GROUP, "-n", name, "-f", file)


@pytest.fixture(scope="module")
def azure(shared_standin: StandIn, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Azure:
    folder = tmp_path_factory.mktemp("aci")
    azure = Azure(shared_standin, folder / "home")
    azure.definition = folder / "group.json"
    azure.az("group", "create", "-n", GROUP, "-l", "westeurope")
    azure.az("acr", "create", "-g", GROUP, "-n", "kiln42amlcr", "--sku", "Basic")
    auth = azure.authfile(azure.az("acr", "login", "-n", "kiln42amlcr", "--expose-token"))
    made = server_image(root)
    there = f"docker://{SERVER}/slipway/server:1"
    azure.run("skopeo", "copy", "--authfile", auth, f"docker-daemon:{made}", there)
    seen = azure.run("skopeo", "inspect", "--authfile", auth, there)
    azure.image = f"{SERVER}/slipway/server@{json.loads(seen.stdout)['Digest']}"
    world = azure.standin.world
    principal = directory(world).add_identity("puller", IDENTITY)
    world.resources[IDENTITY.lower()] = {
        "id": IDENTITY,
        "name": "puller",
        "type": "Microsoft.ManagedIdentity/userAssignedIdentities",
        "location": "westeurope",
        "properties": {},
    }
    grant(world, principal.object_id, "AcrPull", SCOPE)
    return azure


@pytest.fixture(autouse=True)
def alone(azure: Azure) -> Iterator[None]:
    """Each test begins without groups and troubles."""
    yield
    azure.standin.world.faults.clear()
    for group in azure.az("container", "list", "-g", GROUP):
        azure.az("container", "delete", "-g", GROUP, "-n", group["name"], "--yes")


def test_a_group_answers_and_keeps_its_secrets(azure: Azure) -> None:
    azure.create()
    shown = azure.az("container", "show", "-g", GROUP, "-n", "kiln-aci")
    assert shown["provisioningState"] == "Succeeded"
    assert shown["ipAddress"]["fqdn"] == HOST
    scoring = shown["containers"][0]
    assert scoring["instanceView"]["currentState"]["state"] == "Running"
    assert [event["name"] for event in scoring["instanceView"]["events"]] == [
        "Pulling",
        "Pulled",
        "Started",
    ]
    assert "hush-hush" not in json.dumps(shown)
    assert azure.answers().json()["SCORING_KEY"] == "hush-hush"
    logs = azure.run("az", "container", "logs", "-g", GROUP, "-n", "kiln-aci").stdout
    assert "listening on 5001" in logs
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(
            f"https://{HOST}/", proxies={"https": azure.standin.url}, verify=False, timeout=5
        )
    assert azure.ask(port=80).status_code == 502

    azure.az("container", "stop", "-g", GROUP, "-n", "kiln-aci")
    assert azure.ask().status_code == 502
    azure.az("container", "start", "-g", GROUP, "-n", "kiln-aci")
    azure.until("Running")
    assert azure.answers().json()["PLAIN"] == "seen"


def test_traffic_waits_for_the_readiness_probe(azure: Azure) -> None:
    azure.create(container={"environmentVariables": [{"name": "SICK", "value": "12"}]})
    assert azure.ask().status_code == 502
    assert azure.answers().status_code == 200


def test_an_update_takes_the_place_and_other_resources_need_a_new_group(azure: Azure) -> None:
    azure.create()
    changed = [{"name": "PLAIN", "value": "changed"}]
    azure.create(container={"environmentVariables": changed})
    assert azure.answers().json()["PLAIN"] == "changed"
    # A secure value that was not sent again is gone.
    assert "SCORING_KEY" not in azure.ask().json()
    bigger = {"resources": {"requests": {"cpu": 2, "memoryInGB": 1.0}}}
    assert "you must delete it first" in azure.refused(container=bigger)


def test_a_crash_is_seen_and_restarted(azure: Azure) -> None:
    azure.create()
    azure.answers()
    with pytest.raises(requests.exceptions.RequestException):
        azure.ask("/exit").raise_for_status()
    end = time.monotonic() + 20
    view: dict[str, Any] = {"restartCount": 0}
    while not view["restartCount"] and time.monotonic() < end:
        shown = azure.az("container", "show", "-g", GROUP, "-n", "kiln-aci")
        view = shown["containers"][0]["instanceView"]
    assert view["previousState"]["exitCode"] == 3
    assert "BackOff" in [event["name"] for event in view["events"]]


def test_a_container_that_never_lives(azure: Azure) -> None:
    azure.standin.world.faults.trouble("aci container crashes")
    azure.create()
    shown = azure.until("CrashLoopBackOff")
    assert shown["containers"][0]["instanceView"]["previousState"]["exitCode"] == 137
    assert azure.ask().status_code == 502


def test_restart_policy_never(azure: Azure) -> None:
    azure.create(
        restartPolicy="Never", container={"command": ["/bin/sh", "-c", "echo bye; exit 4"]}
    )
    shown = azure.until("Terminated")
    assert shown["containers"][0]["instanceView"]["currentState"]["exitCode"] == 4
    end = time.monotonic() + 10
    while shown["instanceView"]["state"] == "Running" and time.monotonic() < end:
        shown = azure.until("Terminated")
    assert shown["instanceView"]["state"] == "Failed"


def test_secret_volume(azure: Azure) -> None:
    text = base64.b64encode(b"a certificate").decode()
    azure.create(
        volumes=[{"name": "tls", "secret": {"tls.crt": text}}],
        container={
            "volumeMounts": [{"name": "tls", "mountPath": "/tls", "readOnly": True}],
            "readinessProbe": None,
        },
    )
    assert azure.answers("/file/tls/tls.crt").text == "a certificate"
    shown = azure.az("container", "show", "-g", GROUP, "-n", "kiln-aci")
    assert text not in json.dumps(shown)


def test_who_may_not_pull_gets_no_group(azure: Azure) -> None:
    world = azure.standin.world
    wrong = azure.image[:-4] + "0000"
    assert "is not accessible" in azure.refused(container={"image": wrong})
    assert "is not assigned to container group" in azure.refused(
        imageRegistryCredentials=[{"server": SERVER, "identity": IDENTITY + "2"}]
    )
    assert "(InaccessibleImage)" in azure.refused(imageRegistryCredentials=[])
    principal = directory(world).add_identity("puller", IDENTITY).object_id
    for assignment in list(of_type(world, ASSIGNMENT)):
        if assignment["properties"]["principalId"] == principal:
            del world.resources[assignment["id"].lower()]
    try:
        assert "(InaccessibleImage)" in azure.refused()
    finally:
        grant(world, principal, "AcrPull", SCOPE)
    assert azure.az("container", "list", "-g", GROUP) == []


def test_a_template_waits_for_its_group_and_fails_with_it(azure: Azure, root: Path) -> None:
    """The group of arm/aci.json, as `deploy` makes it."""
    given = {
        "name": "kiln-aci",
        "hostLabel": "kiln-aci",
        "location": "westeurope",
        "identity": IDENTITY,
        "server": SERVER,
        "image": azure.image,
        "labels": {},
        "environment": {"variables": [{"name": "SCORING_KEY", "secureValue": "hush-hush"}]},
    }
    file = azure.home / "parameters.json"
    file.write_text(json.dumps({name: {"value": value} for name, value in given.items()}))
    create = ("deployment", "group", "create", "-g", GROUP, "-n", "aci", "--parameters", f"@{file}")
    template = ("--template-file", str(root / "arm" / "aci.json"))
    azure.standin.world.faults.trouble("aci cannot pull", 1)
    assert "Failed to pull image" in azure.az_fails(*create, *template)
    made = azure.az(*create, *template)
    assert made["properties"]["provisioningState"] == "Succeeded"
    assert azure.answers().json()["SCORING_KEY"] == "hush-hush"
    path = f"{SCOPE}/providers/Microsoft.ContainerInstance/containerGroups/kiln-aci"
    url = f"https://management.azure.com{path}?api-version=2023-05-01"
    azure.az("rest", "--method", "patch", "--url", url, "--body", '{"tags": {"proven": "1"}}')
    shown = azure.az("container", "show", "-g", GROUP, "-n", "kiln-aci")
    assert shown["tags"] == {"proven": "1"}
    assert azure.answers().status_code == 200
    assert "hush-hush" not in json.dumps(
        azure.az("deployment", "group", "show", "-g", GROUP, "-n", "aci")
    )


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ("aci has no capacity", "The requested resource is not available in the location"),
        ("aci quota exceeded", "container group quota 'StandardCores' exceeded in region"),
        ("aci cannot pull", "Failed to pull image"),
    ],
)
def test_troubles_pass(azure: Azure, trouble: str, says: str) -> None:
    azure.standin.world.faults.trouble(trouble, 1)
    assert says in azure.refused()
    azure.create()
    assert azure.answers().status_code == 200


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (
            {"container": {"resources": {"requests": {"cpu": 5, "memoryInGB": 1}}}},
            "ResourceRequests",
        ),
        (
            {"container": {"resources": {"requests": {"cpu": 1, "memoryInGB": 0.25}}}},
            "The memory requirement should be in increments of 0.1 GB",
        ),
        ({"container": {"ports": [{"port": 80}]}}, "PortNotOpenInContainers"),
        ({"container": {"immage": "x"}}, "Could not find member 'immage'"),
        ({"osType": "Windows"}, "osType"),
        (
            {"ipAddress": {"type": "Public", "dnsNameLabel": "_", "ports": []}},
            "InvalidDnsNameLabel",
        ),
    ],
)
def test_what_is_refused(azure: Azure, changed: dict[str, Any], code: str) -> None:
    assert code in azure.refused(**changed)


def test_names_and_labels(azure: Azure) -> None:
    assert "InvalidContainerGroupName" in azure.refused(name="Kiln_ACI")
    azure.create()
    assert "not available. Try using a different label" in azure.refused(name="kiln-other")
