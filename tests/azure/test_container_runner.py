"""The verbs in containers, as who has Docker runs them: the az, azureml-sdk and skopeo of our images.

The containers' proxy is a bridge to the stand-in, which listens on loopback only.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import rooms
from tests.azure import bridge
from tests.azure.conftest import AzureClone, surroundings
from tests.azure.standin.standin import StandIn
from tests.azure.test_release import TO_IMAGE
from tests.e2e.conftest import Clone, lay_out

pytestmark = [pytest.mark.azure, pytest.mark.docker]

PORT = 3128
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


class InContainers(AzureClone):
    """A clone with RUNNER=container; `authorities` are whom its containers trust."""

    authorities: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = surroundings()
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "no_proxy", "NO_PROXY"):
            kept.pop(name, None)
        proxy = dict.fromkeys(PROXIES, f"http://bridge:{PORT}")
        return {**kept, **proxy, "RUNNER": "container", "EXTRA_CA": str(self.authorities), **more}

    def call(self, *command: str) -> str:
        return _said(command, self.path, self.environment())


def _said(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """What a command prints that must succeed."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def clone(
    root: Path, tmp_path_factory: pytest.TempPathFactory, shared_standin: StandIn
) -> Iterator[InContainers]:
    folder = tmp_path_factory.mktemp("containers")
    (folder / "clone").mkdir()
    lay_out(root, folder / "clone")
    rooms.write_room(folder / "clone")
    clone = InContainers(folder / "clone", shared_standin)
    clone.authorities = folder / "authorities.pem"
    # Those of this machine too, for the images that are built.
    own = os.environ.get("EXTRA_CA") or os.environ.get("SSL_CERT_FILE")
    files = [shared_standin.world.ca_file, *([Path(own)] if own else [])]
    clone.authorities.write_bytes(b"\n".join(file.read_bytes() for file in files))
    clone.save(RUNNER="container")
    # In this machine's own network: a build cannot reach the bridge, which is not there yet either.
    image = _said(("docker/image.sh", "az"), clone.path, surroundings()).split()[-1]
    try:
        # Makes the clone's network too.
        clone.call("docker/run.sh", "true")
        socket = folder / "bridge"
        code = [sys.executable, bridge.__file__, "socket", str(socket)]
        with subprocess.Popen([*code, str(urlsplit(shared_standin.url).port)]) as outside:
            name = hashlib.sha256(str(clone.path).encode()).hexdigest()[:10]
            mounts = (f"{folder}:{folder}", f"{bridge.__file__}:/bridge.py:ro")
            clone.call(
                *("docker", "run", "--rm", "--detach", "--label", f"slipway.clone={name}"),
                *("--network", f"slipway-{name}", "--network-alias", "bridge"),
                *(word for mount in mounts for word in ("--volume", mount)),
                *(image, "python", "/bridge.py", "port", str(socket), str(PORT)),
            )
            yield clone
            outside.terminate()
    finally:
        clone.make("distclean", CONFIRM="1")


def test_login_and_doctor(clone: InContainers) -> None:
    assert "signed in: service principal" in clone.make("login")
    printed = clone.make("doctor")
    assert "vault Kiln42-AML-KV is free" in printed
    # The login stays, for the next container.
    assert "signing in" not in printed


@pytest.mark.slow
def test_from_an_empty_subscription_to_a_loaded_endpoint(clone: InContainers) -> None:
    # The service's layers are made as the images of the runner are, without the bridge.
    clone.make("image", PLATFORM="local", **{name: os.environ.get(name, "") for name in PROXIES})
    assert Clone.stages(clone.make("all")) == [*TO_IMAGE, "deploy", "smoke", "load", "report"]
    assert clone.records["load-aci"]["failures"] == 0
    assert Clone.stages(clone.make("all")) == []
    assert "healthy, aci 1" in clone.make("status")
    assert '"path":"/score"' in clone.make("logs")
