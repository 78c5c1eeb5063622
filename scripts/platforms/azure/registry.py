"""The workspace's container registry, reached with skopeo.

Docker's daemon ignores a client's proxy and certificates, skopeo does not. It signs in with a token in
a file that only we may read and that is gone afterwards; there is no password.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure.az import STILL, Az
from scripts.platforms.azure.place import Place
from scripts.platforms.azure.refusals import AzureError, assignment
from scripts.settings import without_secrets

#: The user that goes with a token.
NOBODY = "00000000-0000-0000-0000-000000000000"
#: skopeo tries again by itself what broke on the way.
RETRIES = "4"
#: It gives up a transfer that takes longer.
TIMEOUT = "60m"


@dataclass(frozen=True)
class Held:
    """An image in the registry; `size` is what a pull transfers, in bytes."""

    digest: str
    id: str
    size: int
    labels: Mapping[str, str]


class Registry:
    """The registry of one place. Repositories are named without the server."""

    def __init__(self, place: Place, az: Az) -> None:
        self.place = place
        self.az = az
        self.server = place.registry_server

    def find(self, repository: str, tag: str) -> Held | None:
        """The image with that tag or digest; None if there is none."""
        name = self.name(repository, tag)
        raw = self._inspect("--raw", name)
        if raw is None:
            return None
        manifest = json.loads(raw)
        if "config" not in manifest:
            raise SlipwayError(
                f"{name} is no single image", "choose another IMAGE_NAME, or remove it from there"
            )
        config = json.loads(self._inspect("--config", "--raw", name) or b"{}")
        parts = [manifest["config"], *manifest["layers"]]
        return Held(
            digest=f"sha256:{hashlib.sha256(raw).hexdigest()}",
            id=manifest["config"]["digest"],
            size=sum(int(part["size"]) for part in parts),
            labels=dict(sorted(((config.get("config") or {}).get("Labels") or {}).items())),
        )

    def digest(self, repository: str, tag: str) -> str | None:
        """The digest that the tag stands for now; None if there is none."""
        raw = self._inspect("--raw", self.name(repository, tag))
        return None if raw is None else f"sha256:{hashlib.sha256(raw).hexdigest()}"

    def push(self, source: str, repository: str, tag: str) -> str:
        """Copy the image `source` (skopeo's name for it) there; returns its digest."""
        console.step(f"pushing it to {self.server}/{repository}:{tag}")
        with tempfile.TemporaryDirectory(prefix="slipway-push-") as folder:
            note = Path(folder) / "digest"
            self._skopeo(
                *("copy", "--quiet", "--retry-times", RETRIES, "--digestfile", str(note)),
                *("--dest-authfile", self._authfile(folder)),
                *(source, f"docker://{self.name(repository, tag)}"),
            )
            return note.read_text().strip()

    @contextmanager
    def pulled(self, repository: str, digest: str) -> Iterator[Unpacked]:
        """The image's files, fetched into a folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="slipway-pull-") as folder:
            self._skopeo(
                *("copy", "--quiet", "--retry-times", RETRIES),
                *("--src-authfile", self._authfile(folder)),
                *(f"docker://{self.name(repository, digest)}", f"dir:{folder}/image"),
            )
            yield Unpacked(Path(folder) / "image")

    def name(self, repository: str, tag: str) -> str:
        """The full name of an image, by tag or digest."""
        return f"{self.server}/{repository}{'@' if ':' in tag else ':'}{tag}"

    @cached_property
    def _token(self) -> str:
        """A refresh token, good for three hours; made of az's login."""
        try:
            given = self.az(
                *("acr", "login", "--name", self.place.registry, "--expose-token"),
                *("--query", "refreshToken"),
            )
        except AzureError as error:
            if "Unable to authenticate" not in error.said:
                raise
            raise self._refused() from None
        return str(given)

    def _refused(self) -> UsageError:
        return UsageError(
            f"the registry {self.server} refuses this account",
            "let an Owner run: "
            + assignment(self.az.settings.SP_APP_ID, "AcrPush", self.place.registry_id),
        )

    def _authfile(self, folder: str) -> str:
        """A file in `folder` (0700) that signs skopeo in."""
        pair = base64.b64encode(f"{NOBODY}:{self._token}".encode()).decode()
        path = Path(folder) / "auth.json"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as stream:
            json.dump({"auths": {self.server: {"auth": pair}}}, stream)
        return str(path)

    def _inspect(self, *arguments: str) -> bytes | None:
        *options, name = arguments
        with tempfile.TemporaryDirectory(prefix="slipway-look-") as folder:
            try:
                return self._skopeo(
                    *("inspect", "--retry-times", RETRIES, *options),
                    *("--authfile", self._authfile(folder), f"docker://{name}"),
                )
            except NotThere:
                return None

    def _skopeo(self, *arguments: str) -> bytes:
        """What skopeo prints; an error of one line with the mend if it fails."""
        command = ["skopeo", "--insecure-policy", "--command-timeout", TIMEOUT, *arguments]
        pipe, began = subprocess.PIPE, time.monotonic()
        try:
            child = subprocess.Popen(command, env=without_secrets(), stdout=pipe, stderr=pipe)
        except FileNotFoundError:
            raise UsageError(
                "skopeo is not installed here, which images are pushed with",
                "start Docker (the toolbox has it), or install it: apt-get install skopeo",
            ) from None
        with child:
            try:
                while True:
                    try:
                        printed, said = child.communicate(timeout=STILL)
                        break
                    except subprocess.TimeoutExpired:
                        spent = time.monotonic() - began
                        console.step(f"waiting for {self.server}: {spent:.0f} s so far")
            finally:
                child.kill()
        if child.returncode:
            raise self._explain(said.decode("utf-8", "replace"))
        return printed

    def _explain(self, said: str) -> SlipwayError:
        lines = [line for line in said.strip().splitlines() if "level=fatal" in line]
        text = " ".join((lines or said.strip().splitlines() or ["skopeo failed"])[-1].split())
        text = text.partition('msg="')[2].removesuffix('"').replace('\\"', '"') or text
        lower = text.lower()
        if "manifest unknown" in lower or "name unknown" in lower or "name_unknown" in lower:
            return NotThere(f"{self.server} has no such image")
        if any(word in lower for word in ("unauthorized", "denied", "authentication required")):
            return self._refused()
        if "no such image" in lower or "reference does not exist" in lower:
            return UsageError(
                "the image is gone from the Docker engine", "run `make image FORCE=1`"
            )
        return SlipwayError(
            f"the registry {self.server}: {text[-300:]}",
            "try again; `make doctor` checks the way there",
        )


class NotThere(SlipwayError):
    """The registry has no image of that name."""


class Unpacked:
    """An image as skopeo's `dir:` has it: a manifest, and a file for each layer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest: Mapping[str, Any] = json.loads((folder / "manifest.json").read_bytes())
        self.layers = [each["digest"].removeprefix("sha256:") for each in manifest["layers"]]

    def read(self, path: str) -> Mapping[str, bytes]:
        """The file at `path`, or the files in that folder, by name; the uppermost layer's win.

        A scoring image deletes nothing of a layer below, so whiteouts are not looked for.
        """
        wanted = PurePosixPath(path.lstrip("/"))
        found: dict[str, bytes] = {}
        for layer in self.layers:
            with tarfile.open(self.folder / layer) as archive:
                for each in archive:
                    place = PurePosixPath(each.name.removeprefix("./"))
                    if each.isfile() and wanted in (place, place.parent):
                        content = archive.extractfile(each)
                        found[place.name] = content.read() if content else b""
        return found
