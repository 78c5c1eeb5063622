"""The bundle: the exact build context of the scoring image, in `build/bundles/<inputs>`.

`inputs` is a hash of everything a bundle is made from, known before any conversion, so what was
packaged once is found again. A bundle appears whole or not at all; the newest three are kept, and
those that are deployed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scripts.errors import SlipwayError
from scripts.packaging.ways import Converted, Runtime

#: Bundles kept besides those in use.
KEPT = 3

#: How the bundle was proven, kept in it: the record of a bundle that is found again.
PROOF = "packaging.json"

#: Makes the batch scorer, which runs in the toolbox, and leftovers of Python no part of the service.
_LEFT_OUT = shutil.ignore_patterns("batch*", "__pycache__", "*.pyc", ".*")

_LOCKS: dict[Runtime, str] = {
    "linear": "docker/locks/scoring-linear.txt",
    "onnx": "docker/locks/scoring.txt",
    "sklearn": "docker/locks/scoring-sklearn.txt",
}


@dataclass(frozen=True)
class Bundle:
    """A finished bundle: `model` is its model.json, `proof` its packaging.json."""

    inputs: str
    path: Path
    model: Mapping[str, Any]
    proof: Mapping[str, Any]


def inputs_hash(root: Path, model: Path, settings: Mapping[str, Any]) -> str:
    """16 hex digits of everything a bundle and its image are made from.

    `model` is the trained model's folder, `settings` whatever else decides: name, version, RUNTIME.
    """
    digest = hashlib.sha256()
    packages = {name: version(name) for name in ("scikit-learn", "skl2onnx", "onnxruntime")}
    digest.update(json.dumps([settings, packages], sort_keys=True).encode())
    groups = {
        "model": model,
        "scoring": root / "scoring",
        "packaging": Path(__file__).parent,
        **{name: root / "docker" / name for name in ("Dockerfile", "fetch.sh")},
        **{path: root / path for path in _LOCKS.values()},
    }
    for name, base in groups.items():
        for path in sorted(_files(base)):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name}\0{path.relative_to(base)}\0{content}\n".encode())
    return digest.hexdigest()[:16]


def _files(base: Path) -> list[Path]:
    if base.is_file():
        return [base]
    found = []
    for folder, folders, files in os.walk(base):
        ignored = _LEFT_OUT(folder, [*folders, *files])
        folders[:] = [name for name in folders if name not in ignored]
        found += [Path(folder, name) for name in files if name not in ignored]
    return found


class Draft:
    """A bundle being made; `folder` is thrown away unless it is kept."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder
        (folder / "model").mkdir()
        shutil.copytree(root / "scoring", folder / "scoring", ignore=_LEFT_OUT)
        for name in ("Dockerfile", "fetch.sh"):
            shutil.copyfile(root / "docker" / name, folder / name)

    @property
    def model_dir(self) -> Path:
        return self.folder / "model"

    def put_model(self, converted: Converted, runtime: Runtime, model: Mapping[str, Any]) -> None:
        """Put the model file in, model.json beside it, and the lock and code its runtime needs."""
        for old in self.model_dir.iterdir():
            old.unlink()
        (self.model_dir / converted.file).write_bytes(converted.content)
        self.put_json("model/model.json", model)
        shutil.copyfile(self.root / _LOCKS[runtime], self.folder / "requirements.txt")
        if runtime == "sklearn":
            # The estimator's own classes are imported from where they were defined.
            shutil.copytree(self.root / "model", self.folder / "code" / "model", ignore=_LEFT_OUT)

    def put_json(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
        (self.folder / name).write_text(text + "\n", "utf-8")


class Bundles:
    """The bundles of a clone, in `folder` where they are not those that are deployed."""

    def __init__(self, root: Path, folder: Path | None = None) -> None:
        self.root = root
        self.folder = folder or root / "build" / "bundles"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the bundles for one packaging at a time; the lock goes with the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def find(self, inputs: str) -> Bundle | None:
        """The bundle made from these inputs, if it is here and its model file is what it says."""
        path = self.folder / inputs
        try:
            model = json.loads((path / "model" / "model.json").read_text("utf-8"))
            proof = json.loads((path / PROOF).read_text("utf-8"))
            content = (path / "model" / model["file"]).read_bytes()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if hashlib.sha256(content).hexdigest() != model["sha256"]:
            return None
        os.utime(path)  # what is used stays among the newest
        return Bundle(inputs, path, model, proof)

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """A draft in a folder of its own, removed in the end if it was not kept."""
        for left in self.folder.glob(".new-*"):  # by a packaging that was killed
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix=".new-"))
        try:
            yield Draft(self.root, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, draft: Draft, inputs: str) -> Bundle:
        """Make the draft the bundle of these inputs, in place of one that was there."""
        for path in [draft.folder, *draft.folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        path = self.folder / inputs
        if path.exists():
            os.rename(path, tempfile.mkdtemp(dir=self.folder, prefix=".new-old-"))
        os.rename(draft.folder, path)
        bundle = self.find(inputs)
        if bundle is None:
            raise SlipwayError(f"{path} was changed while it was made", "run `make image` again")
        return bundle

    def prune(self, used: Collection[str]) -> None:
        """Remove all but the newest three and those in `used`."""
        found = [path for path in self.folder.iterdir() if path.name[0] != "." and path.is_dir()]
        found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in found[KEPT:]:
            if path.name not in used:
                shutil.rmtree(path, ignore_errors=True)
