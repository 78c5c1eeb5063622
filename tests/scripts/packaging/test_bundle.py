"""The bundle: whole or not at all, found again by what it is made from, the newest three kept."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from scripts.errors import SlipwayError
from scripts.packaging import package as packaging
from scripts.packaging.bundle import KEPT, Bundles, inputs_hash
from tests.scripts.packaging.conftest import ROOT, Packager

SETTINGS = {"name": "kiln", "version": 3, "RUNTIME": "auto"}


def _content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _ridge(frames: dict[str, pd.DataFrame], targets: dict[str, Any]) -> tuple[Any, pd.DataFrame]:
    frame = frames["numbers"]
    return Ridge().fit(frame, targets["value"]), frame


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Path, Path]:
    """A tree whose files may be changed, and a trained model's folder in it."""
    for name in ("scoring", "docker"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "model.pkl").write_bytes(b"a model")
    return tmp_path, tmp_path / "trained"


def test_a_bundle_is_the_whole_build_context_and_no_more(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager, clone: Path
) -> None:
    before = os.umask(0o077)
    try:
        bundle = packager(*_ridge(frames, targets))
    finally:
        os.umask(before)

    assert bundle.path == clone / "build" / "bundles" / "0123456789abcdef"
    content = _content(bundle.path)
    assert {name.split("/")[0] for name in content} == {
        "Dockerfile",
        "fetch.sh",
        "model",
        "packaging.json",
        "requirements.txt",
        "scoring",
    }
    assert {name for name in content if name.startswith("model/")} == {
        "model/model.json",
        "model/linear.json",
    }
    assert content["requirements.txt"] == (ROOT / "docker/locks/scoring-linear.txt").read_bytes()
    assert not any("__pycache__" in name or "batch" in name for name in content)
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in bundle.path.rglob("*"))


def test_packaging_again_gives_the_same_bytes(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager
) -> None:
    estimator, frame = _ridge(frames, targets)

    first = _content(packager(estimator, frame).path)

    assert _content(packager(estimator, frame).path) == first


MODEL_ROOM = """
from sklearn.base import BaseEstimator, TransformerMixin
{imports}

class Doubled(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return X * 2
"""


@pytest.mark.parametrize("imports", ["", "import mlflow"])
def test_a_class_of_the_model_room_goes_along(
    imports: str,
    frames: dict[str, pd.DataFrame],
    targets: dict[str, Any],
    packager: Packager,
    clone: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (clone / "model" / "steps.py").write_text(MODEL_ROOM.format(imports=imports))
    # As if this process worked in that clone.
    monkeypatch.syspath_prepend(str(clone))
    for name in [name for name in sys.modules if name.split(".")[0] == "model"]:
        monkeypatch.delitem(sys.modules, name)
    steps = importlib.import_module("model.steps")
    estimator = make_pipeline(steps.Doubled(), Ridge())
    estimator.fit(frames["numbers"], targets["value"])

    if imports:
        with pytest.raises(SlipwayError, match=r"image alone.*No module named 'mlflow'"):
            packager(estimator, frames["numbers"])
        return
    bundle = packager(estimator, frames["numbers"])

    content = _content(bundle.path)
    assert bundle.model["runtime"] == "sklearn"
    assert {"code/model/steps.py", "code/model/__init__.py", "model/model.joblib"} <= set(content)
    assert content["requirements.txt"] == (ROOT / "docker/locks/scoring-sklearn.txt").read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "trained/model.pkl",
        "scoring/score.py",
        "docker/Dockerfile",
        "docker/fetch.sh",
        "docker/locks/scoring.txt",
        "docker/locks/scoring-linear.txt",
        "docker/locks/scoring-sklearn.txt",
    ],
)
def test_another_input_is_another_bundle(name: str, copied: tuple[Path, Path]) -> None:
    root, trained = copied
    before = inputs_hash(root, trained, SETTINGS)
    with (root / name).open("a") as stream:
        stream.write("\n")

    assert inputs_hash(root, trained, SETTINGS) != before


def test_other_settings_are_another_bundle(copied: tuple[Path, Path]) -> None:
    hashes = {
        inputs_hash(*copied, {**SETTINGS, name: value})
        for name, value in {"version": 4, "RUNTIME": "onnx", "name": "oven"}.items()
    }

    assert len(hashes | {inputs_hash(*copied, SETTINGS)}) == 4


def test_what_is_no_input_changes_nothing(copied: tuple[Path, Path]) -> None:
    root, trained = copied
    before = inputs_hash(root, trained, SETTINGS)
    (root / "scoring" / "__pycache__").mkdir(exist_ok=True)
    (root / "scoring" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (root / "docker" / "haproxy.cfg").write_text("")
    os.utime(trained / "model.pkl", (0, 0))

    assert inputs_hash(root, trained, SETTINGS) == before


def test_a_bundle_is_found_again_unless_it_was_damaged(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager, clone: Path
) -> None:
    bundle = packager(*_ridge(frames, targets))
    found = Bundles(clone).find(bundle.inputs)
    assert found == bundle
    assert Bundles(clone).find("f" * 16) is None

    with (bundle.path / "model" / "linear.json").open("ab") as stream:
        stream.write(b"!")

    assert Bundles(clone).find(bundle.inputs) is None
    # Packaging puts it right.
    assert packager(*_ridge(frames, targets)) == bundle


def test_a_packaging_that_fails_leaves_nothing(
    frames: dict[str, pd.DataFrame],
    targets: dict[str, Any],
    packager: Packager,
    clone: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    estimator, frame = _ridge(frames, targets)
    good = packager(estimator, frame)
    monkeypatch.setattr(packaging, "prove", interrupted)

    with pytest.raises(KeyboardInterrupt):
        packager(estimator, frame)

    assert Bundles(clone).find(good.inputs) == good
    assert os.listdir(clone / "build" / "bundles") in (
        [".lock", good.inputs],
        [good.inputs, ".lock"],
    )


def test_what_a_killed_packaging_left_is_cleared_away(
    frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager, clone: Path
) -> None:
    left = clone / "build" / "bundles" / ".new-abc"
    (left / "model").mkdir(parents=True)

    packager(*_ridge(frames, targets))

    assert not left.exists()


def test_the_newest_three_and_those_in_use_are_kept(clone: Path) -> None:
    bundles = Bundles(clone)
    for age in range(KEPT + 3):
        path = bundles.folder / f"bundle{age}"
        path.mkdir(parents=True)
        os.utime(path, (1000 - age, 1000 - age))

    bundles.prune({"bundle4"})

    assert {path.name for path in bundles.folder.iterdir()} == {
        "bundle0",
        "bundle1",
        "bundle2",
        "bundle4",
    }


def test_one_packaging_at_a_time(clone: Path) -> None:
    bundles, order = Bundles(clone), []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with Bundles(clone).locked():
            order.append("second")

    with bundles.locked():
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait(5)
        thread.join(0.2)
        order.append("first")
    thread.join(5)

    assert order == ["first", "second"]
