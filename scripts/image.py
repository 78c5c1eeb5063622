"""Package the champion, or MODEL_VERSION, and build its scoring image; what is here is reused."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.packaging.bill import bill_of_materials
from scripts.packaging.bundle import Bundle, Bundles, inputs_hash
from scripts.platforms import connect
from scripts.platforms.base import Image, Images, ModelVersion, Platform
from scripts.records import write_atomic
from scripts.verb import Context, Result, run_verb

#: The image's bill of materials, beside its record.
BILL = "image.cdx.json"


def run(context: Context) -> Result:
    platform = connect(context.root, context.settings)
    bundles = Bundles(context.root)
    with bundles.locked():
        anew = bool(context.call.get("FORCE"))
        bundle = packaged(context, platform, bundles, anew=anew)
        image = _image(context, platform.images, bundle, anew)
        bill = context.records.folder / BILL
        write_atomic(bill, bill_of_materials(bundle, image, platform.images))
        # Without the service's word on what it may serve again nothing is removed.
        with suppress(SlipwayError):
            bundles.prune({bundle.inputs, *(each.inputs for each in platform.service.history())})
    record = _record(context, bundle, image, platform.images.engine)
    return Result(_message(bundle, image), {**record, "sbom": context.relative(bill)})


def packaged(context: Context, platform: Platform, bundles: Bundles, *, anew: bool) -> Bundle:
    """The bundle of the champion, or of MODEL_VERSION; made if it is not here, or `anew`.

    The caller has the bundles locked.
    """
    name = context.settings.require("MODEL_NAME")
    chosen = choose_version(
        name, platform.tracking.versions(name), context.call.get("MODEL_VERSION")
    )
    folder = platform.tracking.download(chosen.run_id, "model")
    settings = {
        "name": name,
        "version": chosen.version,
        "RUNTIME": context.settings.RUNTIME,
        "BASE_IMAGE": context.settings.BASE_IMAGE,
    }
    inputs = inputs_hash(context.root, folder, settings)
    bundle = None if anew else bundles.find(inputs)
    if bundle is None:
        return _package(context, platform, chosen, inputs, bundles)
    console.step(f"version {chosen.version} is packaged already ({inputs})")
    return bundle


def choose_version(name: str, versions: Sequence[ModelVersion], wanted: str | None) -> ModelVersion:
    """The version `wanted` names, else the newest; UsageError says which there are."""
    if not versions:
        raise UsageError(f"no version of {name} is registered", "run `make register` first")
    if not wanted:
        return versions[0]
    for each in versions:
        if wanted == str(each.version):
            return each
    known = ", ".join(str(each.version) for each in versions[:10])
    raise UsageError(
        f"MODEL_VERSION={wanted}: {name} has no such version", f"choose one of {known}"
    )


def _package(
    context: Context, platform: Platform, chosen: ModelVersion, inputs: str, bundles: Bundles
) -> Bundle:
    from scripts.contract import load_model_room
    from scripts.dataset import data_path, read_frame, split
    from scripts.packaging.package import package
    from scripts.trained import load_trained

    console.step(f"packaging {chosen.name} version {chosen.version}")
    folder = platform.tracking.download(chosen.run_id, "model")
    estimator, description = load_trained(folder)
    room = load_model_room()
    path = data_path(context.root, context.settings.require("DATA_PATH"))
    _, holdout = split(read_frame(path, room), room, description.holdout_fraction)
    missing = [each.name for each in description.columns if each.name not in holdout.columns]
    if missing:
        raise UsageError(
            f"version {chosen.version} takes columns that {path.name} does not have: "
            f"{', '.join(missing[:5])}",
            "package it with the data it was trained on (DATA_PATH, model/contract.py)",
        )
    identity = {"name": chosen.name, "version": chosen.version, "lineage": _lineage(chosen)}
    return package(
        bundles, inputs, context.settings.RUNTIME, identity, estimator, description, holdout
    )


def _lineage(chosen: ModelVersion) -> dict[str, Any]:
    """Where the version comes from, as its bundle carries it."""
    tags = chosen.tags
    return {
        "run_id": chosen.run_id,
        "commit": tags.get("git_commit"),
        "data_sha256": tags.get("data_sha256"),
        "metrics": json.loads(tags.get("metrics", "{}")),
    }


def _image(context: Context, images: Images, bundle: Bundle, anew: bool) -> Image | None:
    if images.engine == "none":
        return None
    name = images.name(str(bundle.model["name"]))
    reference = f"{name}:{bundle.model['version']}-{bundle.inputs[:8]}"
    digest = str(bundle.model["sha256"])
    found = None if anew else images.find(bundle.inputs, reference)
    if (
        found
        and found.labels.get("slipway.model-sha256") == digest
        and found.reference.rpartition(":")[0] == name
    ):
        console.step(f"its image is here already ({found.id[7:19]})")
        return found
    lineage = bundle.model["lineage"]
    labels = {
        "org.opencontainers.image.title": str(bundle.model["name"]),
        "org.opencontainers.image.version": str(bundle.model["version"]),
        "org.opencontainers.image.revision": lineage["commit"] or "",
        "slipway.model": str(bundle.model["name"]),
        "slipway.model-sha256": digest,
        "slipway.data-sha256": lineage["data_sha256"] or "",
        "slipway.inputs": bundle.inputs,
    }
    return images.build(bundle.path, reference, labels)


def _message(bundle: Bundle, image: Image | None) -> str:
    proof, model = bundle.proof, bundle.model
    packaged = (
        f"{model['name']} {model['version']} runs in {proof['runtime']} ({proof['dtype']}), "
        f"difference {proof['parity']['max_difference']:.1e}"
    )
    if image is None:
        return f"{packaged}; its image is built once a Docker engine is reachable"
    return f"{packaged}; image {image.reference}, {image.size_bytes / 1e6:.0f} MB"


def _record(context: Context, bundle: Bundle, image: Image | None, engine: str) -> dict[str, Any]:
    return {
        "model_name": bundle.model["name"],
        "version": bundle.model["version"],
        "runtime": bundle.proof["runtime"],
        "dtype": bundle.proof["dtype"],
        "parity": bundle.proof["parity"],
        "rejected": bundle.proof["rejected"],
        "inputs": bundle.inputs,
        "bundle": context.relative(bundle.path),
        "model_sha256": bundle.model["sha256"],
        "image": image
        and {
            "id": image.id,
            "reference": image.reference,
            "size_bytes": image.size_bytes,
            "labels": dict(image.labels),
            "digest": image.digest,
        },
        "engine": engine,
    }


def main() -> int:
    return run_verb("image", run)


if __name__ == "__main__":
    sys.exit(main())
