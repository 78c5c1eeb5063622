"""Images built by the registry, where there is no Docker engine: ACR Tasks, from the same contexts.

A task file, not `az acr build`, because only a task's step can be told to use BuildKit, which our
Dockerfile needs: https://learn.microsoft.com/azure/container-registry/container-registry-tasks-reference-yaml
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.refusals import AzureError
from scripts.platforms.azure.registry import Registry
from scripts.settings import Settings, without_secrets

#: The base image in the registry, when it was made here.
BASE, BASE_TAG = "slipway/base", "bookworm"
UPSTREAM = "docker.io/library/debian:bookworm-slim"
#: The task file's name in the context.
TASK = "slipway-task.yaml"
#: Seconds a build may take.
LIMIT = 3600
#: Lines of a failed build's log that are shown.
LOG_TAIL = 15
#: How BuildKit's log names a step that it begins.
STEP = re.compile(r"#\d+ (\[[^]]*\d+/\d+\] (?:RUN|COPY) .*)")


class Builds:
    """Builds stages of docker/Dockerfile in the registry."""

    def __init__(self, root: Path, settings: Settings, az: Az, registry: Registry) -> None:
        self.root = root
        self.settings = settings
        self.az = az
        self.registry = registry

    def build(
        self, context: Path, stage: str, repository: str, tag: str, labels: Mapping[str, str]
    ) -> None:
        """Build `stage` of the Dockerfile in `context` and keep it as `repository`:`tag` there."""
        task = self.task(stage, repository, tag, labels, self.base())
        console.step(
            f"the registry builds the {stage} image (no Docker engine is reachable here): some minutes"
        )
        with tempfile.TemporaryDirectory(prefix="slipway-context-") as folder:
            copy = Path(folder) / "context"
            shutil.copytree(context, copy, ignore=shutil.ignore_patterns("__pycache__", ".git"))
            (copy / TASK).write_text(json.dumps(task, indent=1))
            command = ("acr", "run", "--registry", self.registry.place.registry)
            platform = ("--platform", "linux/amd64", "--timeout", str(LIMIT))
            last: deque[str] = deque(maxlen=LOG_TAIL)
            # The log comes back to a step whenever it has more to say of it.
            told: set[str] = set()
            try:
                for line in self.az.lines(*command, *platform, "--file", TASK, str(copy)):
                    if line.strip():
                        last.append(line.rstrip())
                    step = begun(line)
                    if step and step not in told:
                        console.step(f"| {step}")
                        told.add(step)
            except AzureError as error:
                if not last:
                    raise
                shown = "".join(f"\n  | {line}" for line in last)
                raise SlipwayError(
                    f"building the {stage} image in {self.registry.server} failed."
                    f" The end of its log:{shown}",
                    error.mend or _mend(shown),
                ) from None

    def task(
        self, stage: str, repository: str, tag: str, labels: Mapping[str, str], base: str
    ) -> Mapping[str, object]:
        """The task; `$Registry` is what ACR calls itself in one."""
        name = f"$Registry/{repository}:{tag}"
        options = ["--target", stage, "--build-arg", f"BASE={base}", "--file", "Dockerfile"]
        for label in sorted(labels.items()):
            options += ["--label", "=".join(label)]
        line = f"--tag {name} {shlex.join(options)} ."
        return {
            "version": "v1.1.0",
            "stepTimeout": LIMIT,
            "steps": [{"build": line, "env": ["DOCKER_BUILDKIT=1"]}, {"push": [name]}],
        }

    def base(self) -> str:
        """What builds there start from: BASE_IMAGE, or Debian as made here or as the registry finds it."""
        if self.settings.BASE_IMAGE:
            return self.settings.BASE_IMAGE
        name = f"{self.registry.server}/{BASE}:{BASE_TAG}"
        if self.registry.digest(BASE, BASE_TAG) is not None:
            return name
        console.step("making a Debian base image, once for this registry (half a minute)")
        with tempfile.TemporaryDirectory(prefix="slipway-base-") as folder:
            tar = Path(folder) / "base.tar"
            done = subprocess.run(
                [str(self.root / "docker" / "base.sh"), "--tar", str(tar)],
                env=without_secrets(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            if done.returncode:
                said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
                why = said[-1].removeprefix("error:").strip() if said else "it cannot be made here"
                console.step(f"the registry takes its base from {UPSTREAM}: {why}")
                return UPSTREAM
            try:
                self.registry.push(f"oci:{layout(tar, Path(folder) / 'oci')}", BASE, BASE_TAG)
            except OSError as error:
                raise UsageError(f"the base image: {error}", "free some disk space") from None
        return name


def begun(line: str) -> str | None:
    """What a person is shown of a line of BuildKit's log: the step that it begins, if it does.

    >>> begun("#9 [base 2/4] RUN --mount=type=secret,id=ca sh /usr/local/bin/fetch.sh apt-get update")
    '[base 2/4] RUN apt-get update'
    """
    found = STEP.match(line)
    if found is None:
        return None
    return re.sub(r"--mount=\S* *|sh /usr/local/bin/fetch\.sh ", "", found[1])[:90]


def _mend(log: str) -> str:
    """What to do about a build that failed."""
    if UPSTREAM in log and "metadata" in log:
        return (
            "the registry has no way to Docker Hub: install mmdebstrap here, or name in BASE_IMAGE a"
            " Debian bookworm image that it can pull; then run the verb again"
        )
    return "mend what the log says, then run the verb again"


def layout(tar: Path, folder: Path) -> Path:
    """A root file system as an image of one layer, in the OCI image layout
    (https://github.com/opencontainers/image-spec/blob/main/image-layout.md); returns `folder`.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    with tar.open("rb") as stream:
        layer = hashlib.file_digest(stream, "sha256").hexdigest()
    size = tar.stat().st_size
    tar.rename(blobs / layer)

    def kept(kind: str, value: object) -> dict[str, object]:
        content = json.dumps(value).encode()
        name = hashlib.sha256(content).hexdigest()
        (blobs / name).write_bytes(content)
        return _descriptor(kind, name, len(content))

    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "config": kept("application/vnd.oci.image.config.v1+json", config),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer, size)],
    }
    index = {
        "schemaVersion": 2,
        "manifests": [kept("application/vnd.oci.image.manifest.v1+json", manifest)],
    }
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def _descriptor(kind: str, name: str, size: int) -> dict[str, object]:
    return {"mediaType": kind, "digest": f"sha256:{name}", "size": size}
