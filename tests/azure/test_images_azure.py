"""Images without a Docker engine: built by the registry, found again there, read from another machine."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.azure.conftest import AzureClone, make_clone
from tests.azure.ml_clone import IMAGES

pytestmark = [pytest.mark.azure, pytest.mark.docker, pytest.mark.slow]
REGISTRY = "kiln42amlcr"
SERVER = f"{REGISTRY}.azurecr.io"
NONE = {"SLIPWAY_ENGINE": "none"}
#: Pushes one of our own images, as the verbs that need it do, and prints its name.
PUSH = """
import sys
from scripts.platforms.azure import AzurePlatform
from scripts.settings import load_settings
from scripts.verb import clone_root

root = clone_root()
print(getattr(AzurePlatform(root, load_settings(root)).images, f"push_{sys.argv[1]}")())
"""


@pytest.fixture(scope="module")
def place(shared_clone: AzureClone) -> AzureClone:
    """A place, in which nothing is yet."""
    shared_clone.save(GRACE_SECONDS="1", LOG_WAIT="30", LOAD_DURATION="1", LOAD_USERS="2")
    shared_clone.run("provision")
    return shared_clone


@pytest.fixture(scope="module")
def clone(place: AzureClone, root: Path) -> AzureClone:
    """Version 1 is registered, and a base image is in the registry as an earlier build left it."""
    base = subprocess.run([root / "docker" / "base.sh"], check=True, stdout=subprocess.PIPE)
    source = f"docker-daemon:{base.stdout.decode().strip()}"
    skopeo(place, "copy", "--quiet", source, f"docker://{SERVER}/slipway/base:bookworm")
    register(place)
    return place


def skopeo(clone: AzureClone, *words: str) -> bytes:
    """What skopeo prints, with a login to the registry."""
    token = clone.az("acr", "login", "--name", REGISTRY, "--expose-token")
    pair = base64.b64encode(f"{token['username']}:{token['accessToken']}".encode()).decode()
    path = clone.home / "registry.json"
    path.write_text(json.dumps({"auths": {SERVER: {"auth": pair}}}))
    environment = clone.environment(REGISTRY_AUTH_FILE=str(path))
    return subprocess.run(
        ["skopeo", *words], env=environment, check=True, stdout=subprocess.PIPE
    ).stdout


def register(clone: AzureClone) -> None:
    """Train and register the next version, the run being a process of this machine."""
    file = clone.path / "scripts" / "platforms" / "azure" / "images.py"
    text, world = file.read_text(), clone.standin.world
    file.write_text(IMAGES)
    world.docker = False
    try:
        for verb in ("data", "train", "evaluate", "register"):
            clone.run(verb)
    finally:
        file.write_text(text)
        world.docker = True


def push(clone: AzureClone, what: str, **environ: str) -> tuple[str, str]:
    """Push one of our images; its name, and what was said meanwhile."""
    done = subprocess.run(
        [sys.executable, "-c", PUSH, what],
        cwd=clone.path,
        env=clone.environment(**environ),
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()[-1], done.stdout + done.stderr


def builds(clone: AzureClone) -> list[Any]:
    """The registry's runs, the newest first."""
    found: list[Any] = clone.az("acr", "task", "list-runs", "--registry", REGISTRY)
    return found


def in_registry(clone: AzureClone, image: str) -> dict[str, Any]:
    """An image as the registry has it: its digest, and the id and labels in it."""
    there = f"docker://{SERVER}/{image}"
    config = json.loads(skopeo(clone, "inspect", "--config", there))
    manifest = json.loads(skopeo(clone, "inspect", "--raw", there))
    shown = clone.az("acr", "repository", "show", "--name", REGISTRY, "--image", image)
    return {
        "digest": shown["digest"],
        "id": manifest["config"]["digest"],
        "labels": config["config"]["Labels"],
    }


def test_the_registry_builds_the_scoring_image(clone: AzureClone) -> None:
    printed = clone.run("image", **NONE)
    assert "the registry builds the scoring image (no Docker engine is reachable here)" in printed
    steps = re.findall(r"^  \| (\[[\w-]+ \d+/\d+\] (?:COPY|RUN) .*)$", printed, re.MULTILINE)
    assert any(step.startswith("[scoring ") for step in steps)
    assert len(steps) == len(set(steps))
    record = clone.records["image"]
    assert record["engine"] == "acr"
    image = record["image"]
    server, _, name = image["reference"].partition("/")
    assert server == SERVER
    held = in_registry(clone, name)
    assert {each: image[each] for each in held} == held
    assert held["labels"]["slipway.inputs"] == record["inputs"]
    assert held["labels"]["slipway.model-sha256"] == record["model_sha256"]
    assert image["size_bytes"] > 10_000_000
    assert builds(clone)[0]["status"] == "Succeeded"
    # Its bill of materials was read from the pulled image.
    bill = json.loads((clone.folder / "image.cdx.json").read_text())
    assert {"base-files", "certifi"} <= {each["name"] for each in bill["components"]}


def test_it_is_found_again_after_make_clean(clone: AzureClone) -> None:
    before, runs = clone.records["image"], len(builds(clone))
    for verb in ("image", "deploy-aci", "smoke-aci"):
        (clone.folder / f"{verb}.json").unlink(missing_ok=True)
    shutil.rmtree(clone.path / "build" / "bundles")
    printed = clone.run("image", **NONE)
    assert "its image is here already" in printed
    assert len(builds(clone)) == runs
    after = clone.records["image"]
    assert after["image"] == before["image"]


def test_it_serves_and_another_machine_can_test_it(clone: AzureClone, root: Path) -> None:
    clone.run("deploy", **NONE)
    assert clone.records["deploy-aci"]["image_id"] == clone.records["image"]["image"]["id"]
    other = make_clone(root, clone.path.parent / "another machine", clone.standin)
    other.save(**clone.settings)
    # It has neither records nor bundles: what the model is stands in the image.
    printed = other.run("smoke", **NONE)
    assert "reading the model's description from the image of deployment 1" in printed
    assert other.records["smoke-aci"]["version"] == 1
    other.run("load", **NONE)
    assert other.records["load-aci"]["failures"] == 0
    assert "healthy, aci 1" in other.run("status", **NONE)


@pytest.fixture
def faults(clone: AzureClone) -> Iterator[Any]:
    yield clone.standin.world.faults
    clone.standin.world.faults.clear()


def test_a_build_that_fails_shows_the_end_of_its_log(clone: AzureClone, faults: Any) -> None:
    missing = f"{SERVER}/no-such:1"
    printed = clone.run("image", code=1, **NONE, BASE_IMAGE=missing)
    assert f"building the scoring image in {SERVER} failed" in printed
    assert "  | " in printed
    assert "no-such" in printed
    assert "Traceback" not in printed
    faults.trouble("acr build fails", 1)
    printed = clone.run("image", code=1, **NONE, FORCE="1")
    assert "failed to run step ID: build" in printed
    assert clone.records["image.failed"]["outcome"] == "failed"
    # The same verb succeeds when called again.
    clone.run("image", **NONE)


def test_where_the_registry_may_not_build_it_says_so(clone: AzureClone, faults: Any) -> None:
    faults.trouble("acr tasks not allowed", 5)
    printed = clone.run("image", code=1, **NONE, FORCE="1")
    assert "ACR Tasks" in printed
    assert "RUNNER" in printed or "Docker" in printed


def test_an_image_of_ours_is_pushed_once(clone: AzureClone) -> None:
    first, said = push(clone, "front")
    assert f"pushing it to {SERVER}/slipway/front:" in said
    assert first.startswith(f"{SERVER}/slipway/front@sha256:")
    again, said = push(clone, "front")
    assert again == first
    assert "pushing" not in said
    # Nor does one without an engine build it anew.
    runs = len(builds(clone))
    assert push(clone, "front", **NONE)[0] == first
    assert len(builds(clone)) == runs


@pytest.fixture
def debian(place: AzureClone) -> Iterator[None]:
    """Debian's packages, which a machine here gets by the proxy that is the stand-in.

    From where mmdebstrap takes them by itself, whatever this machine's apt asks.
    """
    hosts = [f"{name}.debian.org" for name in ("deb", "security")]
    place.standin.world.machines.update({host: {80: (host, 80)} for host in hosts})
    yield
    for host in hosts:
        del place.standin.world.machines[host]


@pytest.mark.slow
@pytest.mark.usefixtures("debian")
@pytest.mark.parametrize("what", ["front", "toolbox"])
def test_from_nothing_the_registry_gets_a_base_and_builds_it(place: AzureClone, what: str) -> None:
    for name in ("slipway/base", f"slipway/{what}"):
        if name in place.az("acr", "repository", "list", "--name", REGISTRY):
            where = ("--name", REGISTRY, "--repository", name, "--yes")
            place.az("acr", "repository", "delete", *where)
    first, said = push(place, what, **NONE)
    assert f"pushing it to {SERVER}/slipway/base:bookworm" in said
    assert f"the registry builds the {what} image" in said
    assert builds(place)[0]["outputImages"][0]["digest"] == first.partition("@")[2]
    again, said = push(place, what, **NONE)
    assert again == first
    assert "builds" not in said
    # One with an engine takes it from there too.
    again, said = push(place, what)
    assert again == first
    assert "pushing" not in said


@pytest.mark.slow
def test_the_toolbox_is_pushed_once(place: AzureClone) -> None:
    """From the Docker engine, where it is two gigabytes."""
    if "slipway/toolbox" in place.az("acr", "repository", "list", "--name", REGISTRY):
        where = ("--name", REGISTRY, "--repository", "slipway/toolbox", "--yes")
        place.az("acr", "repository", "delete", *where)
    first, said = push(place, "toolbox")
    assert f"pushing it to {SERVER}/slipway/toolbox:" in said
    assert first.startswith(f"{SERVER}/slipway/toolbox@sha256:")
    again, said = push(place, "toolbox")
    assert again == first
    assert "pushing" not in said
