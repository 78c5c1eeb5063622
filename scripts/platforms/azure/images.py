"""Scoring images for Azure: built as locally, or by the registry itself, and kept in the registry.

What is in the registry counts: it is found again after `make clean` and from another machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from scripts import console
from scripts.checks.finding import Finding, ok, problem
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.builds import UPSTREAM, Builds
from scripts.platforms.azure.place import place
from scripts.platforms.azure.registry import Held, NotThere, Registry
from scripts.platforms.base import Image
from scripts.platforms.local.images import DockerImages
from scripts.settings import Settings, without_secrets

TOOLBOX = "slipway/toolbox"
FRONT = "slipway/front"


class AzureImages:
    """`Image.reference` is <server>/<name>:<tag>, and its size what a pull transfers."""

    def __init__(self, root: Path, settings: Settings, az: Az) -> None:
        self.root = root
        self.settings = settings
        self.az = az
        self.local = DockerImages(root, settings) if has_engine() else None

    @property
    def engine(self) -> str:
        """What builds."""
        return "docker" if self.local else "acr"

    @cached_property
    def registry(self) -> Registry:
        return Registry(place(self.root, self.settings, self.az), self.az)

    @cached_property
    def builds(self) -> Builds:
        return Builds(self.root, self.settings, self.az, self.registry)

    def name(self, model: str) -> str:
        plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-") or "model"
        return f"{self.registry.server}/{self.settings.IMAGE_NAME or plain}"

    def find(self, inputs: str, reference: str = "") -> Image | None:
        if not reference:
            return None
        held = self.registry.find(*self._split(reference))
        if held is None or held.labels.get("slipway.inputs") != inputs:
            return None
        return _image(reference, held)

    def build(self, bundle: Path, reference: str, labels: Mapping[str, str]) -> Image:
        repository, tag = self._split(reference)
        if self.local:
            self.local.build(bundle, reference, labels)
            self.registry.push(f"docker-daemon:{reference}", repository, tag)
        else:
            ours = {**labels, "slipway.role": "scoring"}
            self.builds.build(bundle, "scoring", repository, tag, ours)
        held = self.registry.find(repository, tag)
        if held is None:
            raise SlipwayError(f"{reference} was pushed and is not there", "run `make image` again")
        return _image(reference, held)

    def read(self, image: Image, path: str) -> Mapping[str, bytes]:
        if self.local and self.local.has(image):
            return self.local.read(image, path)
        repository, tag = self._split(image.reference)
        try:
            with self.registry.pulled(repository, image.digest or tag) as unpacked:
                return unpacked.read(path)
        except NotThere:
            raise UsageError(
                f"{image.reference} is no longer in the registry",
                "run `make image FORCE=1`, then `make deploy`",
            ) from None

    def push_toolbox(self) -> str:
        """The toolbox in the registry, by digest; built and pushed if it is not there yet."""
        return self._push_ours("toolbox", TOOLBOX, ("locks/uv.txt", "locks/toolbox.txt"))

    def push_front(self) -> str:
        """The front (haproxy) in the registry, by digest; built and pushed if it is not there yet."""
        return self._push_ours("front", FRONT, ("haproxy.cfg",))

    def _push_ours(self, stage: str, repository: str, inputs: tuple[str, ...]) -> str:
        """An image of docker/Dockerfile; its tag is a hash of what it is made from."""
        folder = self.root / "docker"
        content = b"".join(
            (folder / each).read_bytes() for each in ("Dockerfile", "fetch.sh", *inputs)
        )
        base = (self.settings.BASE_IMAGE or "").encode()
        tag = hashlib.sha256(content + base).hexdigest()[:12]
        digest = self.registry.digest(repository, tag)
        if digest is None and self.local:
            digest = self.registry.push(f"docker-daemon:{self._built(stage)}", repository, tag)
        elif digest is None:
            self.builds.build(folder, stage, repository, tag, {})
            digest = self.registry.digest(repository, tag)
        if digest is None:
            raise SlipwayError(f"the {stage} image was pushed and is not there", "try again")
        return self.registry.name(repository, digest)

    def _built(self, stage: str) -> str:
        """The name of one of our images in the Docker engine, where it is built when missing."""
        console.step(f"looking for the {stage} image in the Docker engine")
        done = subprocess.run(
            [str(self.root / "docker" / "image.sh"), stage],
            env=without_secrets(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            kind = UsageError if done.returncode == 2 else SlipwayError
            raise kind(
                f"the {stage} image could not be built", "mend what is said above, run it again"
            )
        return done.stdout.split()[-1]

    def _split(self, reference: str) -> tuple[str, str]:
        """Repository and tag of a reference to the registry."""
        repository, _, tag = reference.removeprefix(f"{self.registry.server}/").rpartition(":")
        return repository, tag


def findings(settings: Settings) -> Iterator[Finding]:
    """Whether images can be built and pushed from here."""
    if shutil.which("skopeo") is None:
        yield problem(
            "azure images",
            "skopeo is not installed, which they are pushed and looked up with",
            "start Docker (the toolbox has it), or install it: apt-get install skopeo",
        )
    elif has_engine():
        yield ok("azure images", "the Docker engine builds them, skopeo pushes them")
    elif settings.BASE_IMAGE:
        yield ok("azure images", f"the registry builds them, from {settings.BASE_IMAGE}")
    else:
        base = (
            "mmdebstrap makes here" if shutil.which("mmdebstrap") else f"it takes from {UPSTREAM}"
        )
        yield ok("azure images", f"the registry builds them, from a base that {base}")


def has_engine() -> bool:
    """Whether a Docker engine was found."""
    return os.environ.get("SLIPWAY_ENGINE") == "docker"


def pinned(image: Image) -> str:
    """The image by digest: what is deployed."""
    return f"{image.reference.rpartition(':')[0]}@{image.digest}"


def _image(reference: str, held: Held) -> Image:
    return replace(
        Image(id=held.id, reference=reference, size_bytes=held.size, labels=held.labels),
        digest=held.digest,
    )
