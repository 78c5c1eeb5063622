"""Every command of docs/azure.md, in its order, by someone who follows it."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure.clusters import GROUP, attach_cluster
from tests.azure.conftest import AzureClone, make_clone
from tests.azure.standin.standin import StandIn, has_docker
from tests.azure.standin.world import SUBSCRIPTION, TENANT

pytestmark = [pytest.mark.azure, pytest.mark.docker]

PAGE = Path(__file__).parents[2] / "docs" / "azure.md"


def blocks(language: str) -> list[str]:
    """The page's code blocks in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)


def commands() -> list[str]:
    """Every command, in order; the pipeline and the sandbox come after the tear-down on the page."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def settings() -> dict[str, str]:
    """The .env of the page, with a subscription that exists."""
    (text,) = blocks("ini")
    given = dict(line.split("=", 1) for line in text.splitlines())
    return {**given, "SUBSCRIPTION_ID": SUBSCRIPTION, "TENANT_ID": TENANT}


@pytest.fixture(scope="module")
def reader(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureClone]:
    """A fresh clone, and the page's settings."""
    folder = tmp_path_factory.mktemp("docs")
    standin = StandIn(folder / "standin", root, docker=has_docker())
    clone = make_clone(root, folder / "clone", standin)
    kept = ("SP_APP_ID", "SP_APP_SECRET", "RUNNER")
    clone.settings = {name: clone.settings[name] for name in kept} | settings()
    clone.save()
    yield clone
    standin.close()


def run(clone: AzureClone, command: str) -> str:
    """The command as it stands, in the clone, with what the page says of the surroundings."""
    words = shlex.split(command)
    if words[0] == "make":
        names = [word for word in words[1:] if "=" not in word]
        given = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        given.pop("RUNNER", None)
        return clone.make(*names, **given)
    done = subprocess.run(
        words, env=clone.environment(), cwd=clone.path, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_page_is_followed_from_a_new_subscription_to_production_and_back(
    reader: AzureClone,
) -> None:
    story = [line for line in commands() if "sandbox" not in line]
    assert len(story) > 12
    destroy = next(line for line in story if "destroy" in line)
    story.remove(destroy)
    for line in [*story, destroy]:
        if "DEPLOY_TARGET=aks" in line:
            place = reader.records["provision"]
            attach_cluster(reader.standin, place["workspace_id"], place["registry_id"], "aks")
        if "rollback" in line:
            reader.make("deploy", FORCE="1")  # so that there is one before
        printed = run(reader, line)
        if "keyvault" in line:
            assert len(printed.strip()) >= 16
    assert [group["name"] for group in reader.az("group", "list")] == [GROUP]


def test_the_sandbox_starts_and_says_that_it_is_not_azure(reader: AzureClone) -> None:
    (line,) = [line for line in commands() if "sandbox" in line]
    words = [word for word in shlex.split(line) if not word.startswith("RUNNER=")]
    environment = {**reader.environment(), "RUNNER": "here"}
    with subprocess.Popen(
        words, cwd=reader.path, env=environment, stdout=subprocess.PIPE, text=True
    ) as sandbox:
        assert sandbox.stdout
        printed = ""
        deadline = time.monotonic() + 60
        while "Ctrl-C" not in printed and time.monotonic() < deadline:
            printed += sandbox.stdout.readline()
        script = reader.path / "build" / "sandbox" / "sandbox.sh"
        assert script.exists()
        assert script.stat().st_mode & 0o077 == 0
        # Azure is the stand-in there, and Debian's packages come from where they always do.
        probe = (
            "import os, urllib.request as r; print(r.getproxies()['https'], "
            "*(bool(r.proxy_bypass(h)) for h in ('management.azure.com', 'security.debian.org')), "
            "open(os.environ['SSL_CERT_FILE']).read().count('BEGIN CERTIFICATE') > 1)"
        )
        typed = f'. {shlex.quote(str(script))} && exec {shlex.quote(sys.executable)} -c "{probe}"'
        seen = subprocess.run(["sh", "-c", typed], env=environment, capture_output=True, text=True)
        sandbox.send_signal(signal.SIGTERM)
        sandbox.wait(30)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+ False True True\n", seen.stdout), seen
    assert "THIS IS NOT AZURE" in printed
    assert "make all" in printed
    assert not script.exists()
