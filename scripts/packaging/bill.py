"""The bill of materials of a scoring image: CycloneDX 1.6 in JSON (ECMA-424).

It lists the Debian packages as the image itself has them noted, the Python packages of its lock,
and the model. The same image gives the same document, so it has no time, and its serial number is
derived from the image's id.
"""

from __future__ import annotations

import json
import re
import shlex
import uuid
from collections.abc import Iterator, Mapping
from email.parser import Parser
from typing import TYPE_CHECKING

from scripts.packaging.bundle import Bundle
from scripts.platforms.base import Image, Images

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

#: Where an image without a package manager notes its packages, a control file each (the convention
#: of distroless images, which scanners read).
PACKAGES = "/var/lib/dpkg/status.d"
RELEASE = "/usr/lib/os-release"

#: A pin of a lock and its hashes.
_PIN = re.compile(r"^([\w.-]+)==(\S+)((?: \\\n +--hash=sha256:[0-9a-f]{64})+)", re.MULTILINE)


def bill_of_materials(bundle: Bundle, image: Image | None, images: Images) -> bytes:
    """The document for `image`; without one, for what the bundle's lock would install."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    parts = [_model(bundle), *_locked((bundle.path / "requirements.txt").read_text("utf-8"))]
    if image is not None:
        release = b"".join(images.read(image, RELEASE).values()).decode()
        parts += _debian(images.read(image, PACKAGES), release)
    whole = _whole(bundle, image)
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, str(whole.bom_ref.value)),
        metadata=BomMetaData(component=whole),
        components=parts,
    )
    bom.register_dependency(whole, parts)
    document = json.loads(
        make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    )
    # The library always puts the present there.
    del document["metadata"]["timestamp"]
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _whole(bundle: Bundle, image: Image | None) -> Component:
    """What the document is about: the image, else the bundle."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    if image is None:
        return Component(
            type=ComponentType.APPLICATION,
            name=str(bundle.model["name"]),
            version=str(bundle.model["version"]),
            bom_ref=f"bundle:{bundle.inputs}",
        )
    digest = image.id.removeprefix("sha256:")
    return Component(
        type=ComponentType.CONTAINER,
        name=image.reference,
        version=image.id,
        bom_ref=f"image:{image.id}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )


def _model(bundle: Bundle) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    model = bundle.model
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=str(model["name"]),
        version=str(model["version"]),
        bom_ref=f"model:{model['sha256']}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model["sha256"])],
        properties=[
            Property(name=f"slipway:{name}", value=str(model[name]))
            for name in ("file", "runtime", "dtype", "kind", "target")
        ],
    )


def _locked(lock: str) -> Iterator[Component]:
    """The lock's packages; the hashes are those of all files that the lock allows for each."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    for name, version, hashes in _PIN.findall(lock):
        purl = PackageURL("pypi", name=name, version=version)
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            purl=purl,
            bom_ref=str(purl),
            hashes=[
                HashType(alg=HashAlgorithm.SHA_256, content=each)
                for each in re.findall(r"[0-9a-f]{64}", hashes)
            ],
        )


def _debian(notes: Mapping[str, bytes], release: str) -> Iterator[Component]:
    """The packages of the distribution, by their control files and os-release(5)."""
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    said = dict(line.partition("=")[::2] for line in shlex.split(release))
    for _, note in sorted(notes.items()):
        fields = Parser().parsestr(note.decode(), headersonly=True)
        # "Source: gcc-12 (12.2.0-14)", left out where it is the package itself.
        source, _, of = fields.get("Source", fields["Package"]).partition(" ")
        qualifiers = {
            "arch": fields["Architecture"],
            "distro": f"{said['ID']}-{said['VERSION_ID']}",
            "upstream": f"{source}@{of.strip('()') or fields['Version']}",
        }
        purl = PackageURL("deb", said["ID"], fields["Package"], fields["Version"], qualifiers)
        yield Component(
            type=ComponentType.LIBRARY,
            name=fields["Package"],
            version=fields["Version"],
            purl=purl,
            bom_ref=str(purl),
        )
