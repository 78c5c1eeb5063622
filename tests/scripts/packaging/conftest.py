"""A clone as packaging sees it, and models to package, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scripts.contract import Column, Description
from scripts.packaging.bundle import Bundle, Bundles
from scripts.packaging.package import package

ROOT = Path(__file__).resolve().parents[3]
ROWS, HELD_OUT = 400, 100


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A tree with this clone's service and Dockerfile, and a model room of its own."""
    for name in ("scoring", "docker"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "__init__.py").write_text('"""Nothing."""\n')
    return tmp_path


def _numbers() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame({f"x{i}": random.normal(size=ROWS) * 10**i for i in range(4)})


@pytest.fixture(scope="session")
def frames() -> dict[str, pd.DataFrame]:
    """Features by kind, as `dataset.read_frame` gives them."""
    random = np.random.default_rng(1)
    mixed = _numbers()
    for name, among in {"colour": ["red", "green", "blue"], "size": ["s", "m", "l"]}.items():
        mixed[name] = pd.Series(random.choice(among, ROWS), dtype=object)
    gaps = mixed.copy()
    gaps.loc[random.random(ROWS) < 0.1, "x1"] = np.nan
    holes = gaps.copy()
    holes.loc[random.random(ROWS) < 0.1, "colour"] = np.nan
    return {
        "numbers": _numbers(),
        "numbers with gaps": gaps[["x0", "x1", "x2", "x3"]],
        "mixed": mixed,
        "mixed with gaps": gaps,
        "strings with gaps": holes,
        "strings": mixed[["colour", "size"]],
    }


@pytest.fixture(scope="session")
def targets() -> dict[str, Any]:
    """Targets by kind."""
    numbers = _numbers()
    noise = np.random.default_rng(2).normal(size=ROWS)
    value = numbers.x0 * 3 + numbers.x1 * 0.5 + np.sin(numbers.x2 / 100) * 5 + noise
    return {
        "value": value.to_numpy(),
        "positive": np.exp(value / 10).to_numpy(),
        "yes or no": np.where(value > value.median(), "yes", "no").astype(object),
        "level": (value > value.quantile(0.3)).astype(int).to_numpy()
        + (value > value.quantile(0.7)).astype(int).to_numpy(),
        "flag": (value > value.median()).to_numpy(),
    }


def describe(estimator: Any, frame: pd.DataFrame) -> Description:
    """What training would write beside the model."""
    classes = getattr(estimator, "classes_", None)
    return Description(
        kind="regressor" if classes is None else "classifier",
        target="y",
        id_column=None,
        columns=tuple(
            Column(
                name,
                "number" if values.dtype.kind == "f" else "string",
                bool(values.isna().any()),
            )
            for name, values in frame.items()
        ),
        classes=None if classes is None else tuple(np.asarray(classes).tolist()),
        primary_metric="rmse",
        greater_is_better=False,
        parameters={},
        holdout_fraction=0.25,
    )


Packager = Callable[..., Bundle]


@pytest.fixture
def packager(clone: Path) -> Packager:
    """Packages a fitted estimator into the clone's bundles."""

    def make(
        estimator: Any,
        frame: pd.DataFrame,
        *,
        runtime: str = "auto",
        inputs: str = "0123456789abcdef",
        description: Description | None = None,
    ) -> Bundle:
        bundles = Bundles(clone)
        with bundles.locked():
            return package(
                bundles,
                inputs,
                runtime,
                {"name": "kiln", "version": 3, "lineage": {"run_id": "r1"}},
                estimator,
                description or describe(estimator, frame),
                frame[-HELD_OUT:],
            )

    return make
