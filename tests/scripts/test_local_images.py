"""Images in a real engine: found by their labels, the newest three kept, an interrupted build ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.errors import UsageError
from scripts.platforms.base import Image
from scripts.platforms.local.images import DockerImages, NoImages
from scripts.settings import Settings

#: As small as an image can be.
TINY = "FROM scratch AS scoring\nCOPY number /number\n"
SLOW = "ARG BASE\nFROM ${BASE} AS scoring\nRUN sleep 97.31\n"

BUILD = """
import sys
from pathlib import Path
from scripts.platforms.local.images import DockerImages
from scripts.settings import Settings
root = Path(sys.argv[1])
print("begun", flush=True)
DockerImages(root, Settings()).build(root / "bundle", "slipway-test-slow:1", {})
"""


def test_without_an_engine_there_is_no_image() -> None:
    images = NoImages()

    assert images.engine == "none"
    assert images.find("0123456789abcdef") is None
    assert images.read(Image("sha256:0", "kiln:1", 1, {}), "/number") == {}
    with pytest.raises(UsageError, match="no Docker engine"):
        images.build(Path("bundle"), "kiln:1", {})


@pytest.fixture
def images(tmp_path: Path, root: Path) -> Iterator[DockerImages]:
    """The images of a clone of its own; they are removed in the end."""
    import docker

    shutil.copytree(root / "docker", tmp_path / "docker")
    (tmp_path / "make").symlink_to(root / "make")
    (tmp_path / "bundle").mkdir()
    images = DockerImages(tmp_path, Settings())
    yield images
    client = docker.from_env()
    label = {"label": f"slipway.clone={images.clone}"}
    for container in client.containers.list(all=True, filters=label):
        container.remove(force=True)
    for image in client.images.list(filters=label):
        client.images.remove(image.id, force=True)
    client.close()


def build(images: DockerImages, number: int) -> str:
    bundle = images.root / "bundle"
    (bundle / "Dockerfile").write_text(TINY)
    (bundle / "number").write_text(f"{images.clone} {number}")
    return images.build(
        bundle, f"slipway-{images.clone}-tiny:{number}", {"slipway.inputs": f"inputs{number}"}
    ).id


@pytest.mark.docker
def test_the_newest_three_and_those_in_use_are_kept(images: DockerImages) -> None:
    import docker

    client = docker.from_env()
    ids = {1: build(images, 1)}
    client.containers.create(ids[1], command="none", labels={"slipway.clone": images.clone})
    client.close()
    for number in range(2, 7):
        ids[number] = build(images, number)

    kept = {number for number in ids if images.find(f"inputs{number}")}

    assert kept == {1, 4, 5, 6}
    found = images.find("inputs6")
    assert found is not None
    assert (found.id, found.reference) == (ids[6], f"slipway-{images.clone}-tiny:6")
    assert found.labels["slipway.role"] == "scoring"


@pytest.mark.docker
def test_files_of_an_image_are_read_without_running_it(images: DockerImages) -> None:
    import docker

    build(images, 1)
    found = images.find("inputs1")
    assert found is not None
    client = docker.from_env()
    # As a call that was killed leaves it.
    client.containers.create(found.id, ["nothing"], name=f"slipway-{images.clone}-look")

    assert images.read(found, "/number") == {"number": f"{images.clone} 1".encode()}
    assert "number" in images.read(found, "/")

    left = client.containers.list(all=True, filters={"name": f"slipway-{images.clone}-look"})
    client.close()
    assert left == []


@pytest.mark.docker
def test_force_is_not_for_the_base_image(
    images: DockerImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All clones share that image: made anew, it would make every other image out of date. So the
    # real script is not run here.
    seen = images.root / "force"
    base = images.root / "docker" / "base.sh"
    base.write_text(f'#!/bin/sh\necho "${{FORCE:-unset}}" >{seen}\necho scratch\n')
    monkeypatch.setenv("FORCE", "1")

    build(images, 1)

    assert seen.read_text() == "unset\n"


@pytest.mark.docker
@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_no_process(
    images: DockerImages, root: Path, interrupt: signal.Signals
) -> None:
    (images.root / "bundle" / "Dockerfile").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD.replace("root = ", PREPARED), str(images.root)],
        cwd=root,
        env={**os.environ, "VERBOSE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "sleep 97.31" in line:
            break
    process.send_signal(interrupt)
    process.stdout.read()
    process.wait(30)
    process.stdout.close()

    deadline = time.monotonic() + 10
    while _mentioning(str(images.root / "bundle")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


#: As scripts.verb has it: SIGTERM is an exception.
PREPARED = "import signal; signal.signal(signal.SIGTERM, signal.default_int_handler); root = "


def _mentioning(text: str) -> list[int]:
    """Processes whose command line holds `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
