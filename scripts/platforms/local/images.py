"""The scoring images of this clone in the Docker engine, and what stands in where there is none."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.base import Image
from scripts.platforms.local import engine
from scripts.settings import Settings, clone_id

if TYPE_CHECKING:
    from docker import DockerClient

#: Images kept besides those a container was made from.
KEPT = 3

LOG = "build/docker/scoring.log"


class NoImages:
    """Where no Docker engine is reachable: bundles are served as they are."""

    engine = "none"

    def name(self, model: str) -> str:
        return model

    def find(self, inputs: str, reference: str = "") -> Image | None:
        return None

    def build(self, bundle: Path, reference: str, labels: Mapping[str, str]) -> Image:
        raise UsageError(
            "no Docker engine is reachable, so no image can be built",
            "start Docker and run `make image` again",
        )

    def read(self, image: Image, path: str) -> Mapping[str, bytes]:
        return {}


class DockerImages:
    """Images carry this clone's id and their inputs as labels: the engine itself is the memory."""

    engine = "docker"

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.clone = clone_id(root)

    @cached_property
    def _client(self) -> DockerClient:
        return engine.connect()

    def name(self, model: str) -> str:
        """IMAGE_NAME, or a name that no other clone uses."""
        if self.settings.IMAGE_NAME:
            return self.settings.IMAGE_NAME
        plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-") or "model"
        return f"slipway-{self.clone}-{plain}"

    def has(self, image: Image) -> bool:
        """Whether that very image is here."""
        import docker.errors

        with engine.explained():
            try:
                self._client.images.get(image.id)
            except docker.errors.ImageNotFound:
                return False
            return True

    def find(self, inputs: str, reference: str = "") -> Image | None:
        with engine.explained():
            found = self._ours({"slipway.inputs": inputs})
        return _image(found[0]) if found else None

    def build(self, bundle: Path, reference: str, labels: Mapping[str, str]) -> Image:
        ours = {**labels, "slipway.clone": self.clone, "slipway.role": "scoring"}
        options = [
            option for each in sorted(ours.items()) for option in ("--label", "=".join(each))
        ]
        script = str(self.root / "docker" / "build.sh")
        self._run([script, "scoring", str(bundle), reference, *options])
        with engine.explained():
            built = self._client.images.get(reference)
            self._prune(built.id)
            return _image(built, reference)

    def read(self, image: Image, path: str) -> Mapping[str, bytes]:
        with engine.explained():
            container = self._look(image)
            try:
                stream, _ = container.get_archive(path)
                packed = b"".join(stream)
            finally:
                container.remove()
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            files = [each for each in archive if each.isfile()]
            stored = {PurePosixPath(each.name).name: archive.extractfile(each) for each in files}
            return {name: content.read() for name, content in stored.items() if content}

    def _look(self, image: Image) -> Any:
        """A container of the image that never runs, in place of one that a killed call left."""
        import docker.errors

        name = f"slipway-{self.clone}-look"
        with suppress(docker.errors.NotFound):
            self._client.containers.get(name).remove()
        labels = {"slipway.clone": self.clone, "slipway.role": "look"}
        return self._client.containers.create(image.id, ["nothing"], name=name, labels=labels)

    def _run(self, command: list[str]) -> None:
        """Run the build and show its steps; what it says from `error:` on becomes the error."""
        named = {"BASE_IMAGE": self.settings.BASE_IMAGE, "EXTRA_CA": self.settings.EXTRA_CA}
        # FORCE is for the verb that was called; for docker's scripts it would mean a new base image.
        inherited = {name: value for name, value in os.environ.items() if name != "FORCE"}
        failure: list[str] = []
        with subprocess.Popen(
            command,
            env={**inherited, **{name: value for name, value in named.items() if value}},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # A group of its own: an interrupted verb must not leave docker building behind it.
            start_new_session=True,
        ) as process:
            try:
                for line in process.stderr or ():
                    if failure or line.startswith("error: "):
                        failure.append(line.rstrip())
                    else:
                        console.step(line.strip())
                code = process.wait()
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGTERM)
        if code:
            raise _failure(code, failure)

    def _prune(self, current: str | None) -> None:
        """Remove this clone's scoring images but the newest three and those that containers use."""
        import docker.errors

        used = {
            container.attrs["ImageID"]
            for container in self._client.containers.list(all=True, sparse=True)
        }
        for image in self._ours()[KEPT:]:
            if image.id == current or image.id in used:
                continue
            for name in image.tags or [image.id]:
                # Another process may have begun to use it, or removed it itself.
                with suppress(docker.errors.APIError):
                    self._client.images.remove(name)

    def _ours(self, labels: Mapping[str, str] = {}) -> list[Any]:
        """This clone's scoring images with these labels, the newest first."""
        wanted = {**labels, "slipway.clone": self.clone, "slipway.role": "scoring"}
        filters = {"label": [f"{name}={value}" for name, value in wanted.items()]}
        found = self._client.images.list(filters=filters)
        return sorted(found, key=lambda image: str(image.attrs["Created"]), reverse=True)


def _image(found: Any, reference: str = "") -> Image:
    return Image(
        id=found.id,
        reference=reference or (found.tags[0] if found.tags else found.id),
        size_bytes=found.attrs["Size"],
        labels=dict(sorted(found.labels.items())),
    )


def _failure(code: int, lines: list[str]) -> SlipwayError:
    """The build script's last words as an error: its first line, and its advice as the mend."""
    quoted = [line for line in lines if line.startswith("  | ")]
    advice = [line.strip() for line in lines[1:] if line not in quoted]
    for line in quoted:
        console.step(line.strip())
    message = lines[0].removeprefix("error: ") if lines else f"the build ended with code {code}"
    if quoted:
        message = f"building the scoring image failed (its log: {LOG})"
    kind = UsageError if code == 2 else SlipwayError
    return kind(message, " ".join(advice) or f"read {LOG}, then run `make image` again")
