"""az and skopeo with a login on a stand-in, and an image made of nothing, for tests of the stand-in."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from tests.azure.standin.standin import StandIn
from tests.azure.standin.world import APP, TENANT


class Cli:
    """az and skopeo as a user has them, with a login."""

    def __init__(self, standin: StandIn, home: Path) -> None:
        home.mkdir()
        self.home, self.standin = home, standin
        self.environment = {
            "PATH": os.environ["PATH"],
            **standin.environment(home),
        }
        secret = standin.world.app_secret
        signin = f"login --service-principal -u {APP} --password={secret} -t {TENANT}"
        self.az(*signin.split())

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done

    def az(self, *arguments: str) -> Any:
        printed = self.run("az", *arguments, "--output", "json").stdout
        return json.loads(printed or "null")

    def fails(self, *command: str) -> str:
        """What a command that must fail says."""
        done = self.run(*command, check=False)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def az_fails(self, *arguments: str) -> str:
        return self.fails("az", *arguments)

    def authfile(self, token: Mapping[str, str]) -> str:
        """A file for skopeo from what `az acr login --expose-token` gave."""
        pair = f"{token['username']}:{token['accessToken']}"
        auths = {token["loginServer"]: {"auth": base64.b64encode(pair.encode()).decode()}}
        path = self.home / "auth.json"
        path.write_text(json.dumps({"auths": auths}))
        return str(path)


def image_archive(path: Path, content: bytes = b"hello") -> Path:
    """A tar that `docker load` and skopeo read: one layer with one file."""
    layer = BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo("hello.txt")
        entry.size = len(content)
        tar.addfile(entry, BytesIO(content))
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "test"}],
    }
    files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer.getvalue(),
        "manifest.json": json.dumps(
            [{"Config": "config.json", "RepoTags": ["tiny:1"], "Layers": ["layer.tar"]}]
        ).encode(),
    }
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, BytesIO(data))
    return path
