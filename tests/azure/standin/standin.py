"""The stand-in put together: modules add their routes and resource types, the proxy begins to listen."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.azure.standin import (
    access,
    aci,
    aks,
    arm,
    build_blobs,
    builds,
    containers,
    deployments,
    elsewhere,
    generic,
    graph,
    identities,
    insights,
    keyvault,
    keyvault_certificates,
    kudu,
    ml,
    mlworkspaces,
    operations,
    providers,
    registry,
    registry_data,
    registry_tokens,
    signin,
    storage,
    tags,
    vaults,
    webapp,
    webapp_routes,
)
from tests.azure.standin.certificates import Certificates
from tests.azure.standin.proxy import Proxy
from tests.azure.standin.resources import ResourceTypes
from tests.azure.standin.routes import Routes
from tests.azure.standin.world import World


@dataclass(frozen=True)
class Parts:
    """What a module adds to."""

    world: World
    routes: Routes
    types: ResourceTypes


#: Each module's `add`; routes are asked in this order. `generic` answers for all resources that no
#: module before it answers for, so it is the last.
MODULES: Sequence[Callable[[Parts], None]] = (
    elsewhere.add,
    containers.add,
    signin.add,
    access.add,
    graph.add,
    operations.add,
    arm.add,
    providers.add,
    registry.add,
    aci.add,
    keyvault.add,
    keyvault_certificates.add,
    registry_tokens.add,
    registry_data.add,
    build_blobs.add,
    builds.add,
    ml.add,
    deployments.add,
    aks.add,
    webapp.add,
    webapp_routes.add,
    kudu.add,
    storage.add,
    vaults.add,
    insights.add,
    identities.add,
    mlworkspaces.add,
    tags.add,
    generic.add,
)


class StandIn:
    """One stand-in at work in `folder`, until `close`."""

    def __init__(self, folder: Path, root: Path, *, docker: bool, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.world = World(folder, docker, root)
        self.routes, self.types = Routes(), ResourceTypes()
        certificates = Certificates(folder)
        self.world.ca_file = certificates.ca_file
        for add in MODULES:
            add(Parts(self.world, self.routes, self.types))
        self.proxy = Proxy(self.world, self.routes, certificates, port)
        self.proxy.begin()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.world.port}"

    def environment(self, home: Path) -> Mapping[str, str]:
        """What a client's environment must hold so that the stand-in is its Azure.

        `home` is an empty folder of its own: the clients cache what they found in it. azureml's engine
        for data sets reads the proxy in lower case.
        """
        ca = str(self.world.ca_file)
        names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        authorities = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
        (home / ".azure").mkdir(parents=True, exist_ok=True)
        return {
            **dict.fromkeys(names, self.url),
            **dict.fromkeys(authorities, ca),
            # Image builds reach the real network, by the certificates that this machine has.
            "EXTRA_CA": os.environ.get("EXTRA_CA") or os.environ.get("SSL_CERT_FILE", ""),
            "NO_PROXY": "",
            "no_proxy": "",
            "HOME": str(home),
            "AZURE_CONFIG_DIR": str(home / ".azure"),
            "AZURE_CORE_COLLECT_TELEMETRY": "no",
            "AZURE_CORE_NO_COLOR": "true",
        }

    def close(self) -> None:
        """Stop answering and whatever was started."""
        self.proxy.shutdown()
        self.proxy.server_close()
        self.world.close()


def engine_answers() -> bool:
    """Whether a Docker engine runs here."""
    try:
        asked = ["docker", "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(asked, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def has_docker() -> bool:
    """Whether tests may use containers."""
    return os.environ.get("SLIPWAY_ENGINE") != "none" and engine_answers()
