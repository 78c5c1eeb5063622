"""Releases of a model of the tests' own: version n answers a row with its sum plus 100 n."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import onnx
from onnx import TensorProto, helper

from scripts.platforms.base import Image, Release

ROOT = Path(__file__).resolve().parents[3]
ROWS = [[1.0, 2.0], [3.0, 4.0]]
MODEL = "adder"


def predict(version: int) -> list[float]:
    """What version `version` answers to `ROWS`."""
    return [sum(row) + 100 * version for row in ROWS]


def write_release(clone: Path, version: int, name: str = "", **model: Any) -> Release:
    """A bundle with the real scoring package in the clone; `model` replaces parts of model.json."""
    inputs = hashlib.sha256(f"{version}{name}".encode()).hexdigest()[:16]
    bundle = clone / "build" / "bundles" / inputs
    shutil.copytree(
        ROOT / "scoring", bundle / "scoring", ignore=shutil.ignore_patterns("__pycache__")
    )
    for source, name in (
        ("Dockerfile", "Dockerfile"),
        ("fetch.sh", "fetch.sh"),
        ("locks/scoring.txt", "requirements.txt"),
    ):
        shutil.copy(ROOT / "docker" / source, bundle / name)
    content = _onnx(version)
    description = {
        "name": MODEL,
        "version": version,
        "kind": "regressor",
        "target": "total",
        "columns": [{"name": name, "type": "number", "nullable": False} for name in ("a", "b")],
        "classes": None,
        "probabilities": False,
        "runtime": "onnx",
        "dtype": "float64",
        "file": "model.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "inputs": "matrix",
        "sample": {"request": {"data": ROWS}, "result": predict(version), "tolerance": 1e-6},
        "lineage": {"run_id": f"run{version}", "metrics": {}},
        **model,
    }
    (bundle / "model").mkdir()
    (bundle / "model" / "model.onnx").write_bytes(content)
    (bundle / "model" / "model.json").write_text(json.dumps(description))
    return Release(MODEL, version, inputs, bundle, None)


def sample_of(release: Release) -> dict[str, Any]:
    sample: dict[str, Any] = json.loads((release.bundle / "model" / "model.json").read_text())[
        "sample"
    ]
    return sample


def write_record(clone: Path, release: Release) -> None:
    """The image record that `make deploy` reads."""
    image = release.image
    record = {
        "verb": "image",
        "outcome": "done",
        "model_name": release.model_name,
        "version": release.version,
        "inputs": release.inputs,
        "bundle": release.bundle.relative_to(clone).as_posix(),
        "image": image
        and {
            "id": image.id,
            "reference": image.reference,
            "size_bytes": image.size_bytes,
            "labels": dict(image.labels),
        },
    }
    folder = clone / "build" / "local"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image.json").write_text(json.dumps(record))


def build_image(release: Release, name: str) -> Release:
    """The release with its image, named `name`:VERSION, built as `make image` builds it."""
    reference = f"{name}:{release.inputs}"
    subprocess.run(
        [ROOT / "docker" / "build.sh", "scoring", release.bundle, reference],
        check=True,
        capture_output=True,
    )
    client = docker.from_env()
    try:
        found = client.images.get(reference)
    finally:
        client.close()
    image = Image(found.id, reference, found.attrs["Size"], dict(found.labels))
    return replace(release, image=image)


def _onnx(version: int) -> bytes:
    ones = helper.make_tensor("ones", TensorProto.DOUBLE, [2, 1], [1.0, 1.0])
    bias = helper.make_tensor("bias", TensorProto.DOUBLE, [1], [100.0 * version])
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["input", "ones"], ["sum"]),
            helper.make_node("Add", ["sum", "bias"], ["variable"]),
        ],
        "adder",
        [helper.make_tensor_value_info("input", TensorProto.DOUBLE, [None, 2])],
        [helper.make_tensor_value_info("variable", TensorProto.DOUBLE, [None, 1])],
        [ones, bias],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())
