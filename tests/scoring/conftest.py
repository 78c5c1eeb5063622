"""Models packaged once for all tests, and servers around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scoring import bundles
from tests.scoring.service import Service


@pytest.fixture(scope="session")
def regressor_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.numbers_regressor(tmp_path_factory.mktemp("regressor"))


@pytest.fixture(scope="session")
def classifier_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.mixed_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def drill_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.drill(tmp_path_factory.mktemp("drill"))


@pytest.fixture(scope="session")
def regressor(regressor_dir: Path) -> Iterator[Service]:
    service = Service(regressor_dir)
    yield service
    service.stop()


@pytest.fixture(scope="session")
def classifier(classifier_dir: Path) -> Iterator[Service]:
    service = Service(classifier_dir)
    yield service
    service.stop()


@pytest.fixture(scope="session")
def drills(drill_dir: Path) -> Iterator[Service]:
    service = Service(drill_dir)
    yield service
    service.stop()


@pytest.fixture
def start() -> Iterator[Callable[..., Service]]:
    """Starts servers that end with the test."""
    started: list[Service] = []

    def starter(*arguments: object, **options: object) -> Service:
        started.append(Service(*arguments, **options))  # type: ignore[arg-type]
        return started[-1]

    yield starter
    for service in started:
        service.stop()
