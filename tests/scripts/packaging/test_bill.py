"""The bill of materials: valid CycloneDX, all that is in the image, the same for the same image."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from sklearn.linear_model import Ridge

from scripts.packaging.bill import PACKAGES, RELEASE, bill_of_materials
from scripts.packaging.bundle import Bundle
from scripts.platforms.base import Image, Images
from tests.scripts.packaging.conftest import ROOT, Packager

IMAGE = Image("sha256:" + "a1" * 32, "kiln:3-01234567", 1, {})

NOTES = {
    "libgcc-s1": b"""Package: libgcc-s1
Source: gcc-12 (12.2.0-14+deb12u1)
Version: 1:12.2.0-14+deb12u1
Architecture: amd64
Description: support library
 It has more than one line.
""",
    "tzdata": b"Package: tzdata\nVersion: 2026a-0+deb12u1\nArchitecture: all\n",
}


class Shelf:
    """Stands for the engine; the docker tests read real images."""

    engine = "docker"

    def find(self, inputs: str) -> Image | None:
        raise NotImplementedError

    def build(self, bundle: Path, reference: str, labels: Mapping[str, str]) -> Image:
        raise NotImplementedError

    def read(self, image: Image, path: str) -> Mapping[str, bytes]:
        assert image is IMAGE
        return {
            PACKAGES: NOTES,
            RELEASE: {"os-release": b'NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="12"\n'},
        }[path]


def _bill(bundle: Bundle, image: Image | None, images: Images) -> dict[str, Any]:
    """The document, which is valid by the strict schema."""
    text = bill_of_materials(bundle, image, images).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture
def bundle(frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager) -> Bundle:
    frame = frames["numbers"]
    return packager(Ridge().fit(frame, targets["value"]), frame)


def _by_purl(bill: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["purl"]: each for each in bill["components"] if "purl" in each}


def test_it_lists_the_image_the_model_and_every_package(bundle: Bundle) -> None:
    bill = _bill(bundle, IMAGE, Shelf())

    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    whole = bill["metadata"]["component"]
    assert whole["type"] == "container"
    assert (whole["name"], whole["version"]) == (IMAGE.reference, IMAGE.id)
    (model,) = [each for each in bill["components"] if each["type"] == "machine-learning-model"]
    assert (model["name"], model["version"]) == ("kiln", "3")
    assert model["hashes"] == [{"alg": "SHA-256", "content": bundle.model["sha256"]}]
    found = _by_purl(bill)
    assert {purl for purl in found if purl.startswith("pkg:deb/")} == {
        "pkg:deb/debian/libgcc-s1@1:12.2.0-14%2Bdeb12u1"
        "?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-14%2Bdeb12u1",
        "pkg:deb/debian/tzdata@2026a-0%2Bdeb12u1"
        "?arch=all&distro=debian-12&upstream=tzdata%402026a-0%2Bdeb12u1",
    }
    lock = (ROOT / "docker/locks/scoring-linear.txt").read_text()
    pins = re.findall(r"^(\S+)==(\S+)", lock, re.MULTILINE)
    assert {purl for purl in found if purl.startswith("pkg:pypi/")} == {
        f"pkg:pypi/{name}@{version}" for name, version in pins
    }
    hashes = [entry["content"] for each in found.values() for entry in each.get("hashes", [])]
    assert sorted(hashes) == sorted(set(re.findall(r"sha256:([0-9a-f]{64})", lock)))
    (held,) = [each for each in bill["dependencies"] if each["ref"] == whole["bom-ref"]]
    assert set(held["dependsOn"]) == {each["bom-ref"] for each in bill["components"]}


def test_without_an_image_it_lists_the_bundle(bundle: Bundle) -> None:
    bill = _bill(bundle, None, Shelf())

    whole = bill["metadata"]["component"]
    assert (whole["type"], whole["name"], whole["version"]) == ("application", "kiln", "3")
    assert all(purl.startswith("pkg:pypi/") for purl in _by_purl(bill))


PROGRAM = """
import sys
from pathlib import Path
from scripts.packaging.bill import bill_of_materials
from scripts.packaging.bundle import Bundles
from tests.scripts.packaging.test_bill import IMAGE, Shelf
bundle = Bundles(Path(sys.argv[1])).find("0123456789abcdef")
sys.stdout.buffer.write(bill_of_materials(bundle, IMAGE, Shelf()))
"""


def test_the_same_image_has_the_same_document(bundle: Bundle, clone: Path) -> None:
    ours = bill_of_materials(bundle, IMAGE, Shelf())
    theirs = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(clone)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
    ).stdout

    assert theirs == ours
    assert "timestamp" not in json.loads(ours)["metadata"]
    other = json.loads(bill_of_materials(bundle, None, Shelf()))
    assert other["serialNumber"] != json.loads(ours)["serialNumber"]
