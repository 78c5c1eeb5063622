"""schemathesis tries whatever the service's own description allows, and much that it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.engine import events, from_schema
from sklearn.linear_model import LinearRegression

from tests.scoring import bundles
from tests.scoring.service import Service

BUNDLES: dict[str, Callable[[Path], Path]] = {
    "matrix": bundles.numbers_regressor,
    "float32": bundles.float32_regressor,
    "linear": bundles.linear_regressor,
    "mixed": bundles.mixed_classifier,
    # Not the drill model: how long it sleeps, and whether it fails, is the client's choice.
    "sklearn": lambda folder: bundles.sklearn_regressor(folder, LinearRegression()),
}


@pytest.mark.parametrize(
    ("name", "key"),
    [*((name, None) for name in BUNDLES), ("matrix", "sesame"), ("mixed", "sesame")],
)
def test_the_service_does_what_it_describes(
    tmp_path: Path, start: Callable[..., Service], name: str, key: str | None
) -> None:
    # schemathesis keeps its connections open.
    settings = {"SCORING_KEY": key or "", "GRACE_SECONDS": "0.1"}
    service = start(BUNDLES[name](tmp_path), settings)
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/swagger.json")
    if key is not None:
        schema.config.update(headers={"Authorization": f"Bearer {key}"})
    schema.config.generation.update(max_examples=50)
    found, checked = [], set()
    for event in from_schema(schema).execute():
        found += problems(event)
        checked |= checks(event)
    assert found == []
    # So that a schema nobody could send anything for is not taken for a success.
    assert {"not_a_server_error", "response_schema_conformance", "ignored_auth"} <= checked


def problems(event: Any) -> list[str]:
    """What an event of schemathesis reports as wrong."""
    if isinstance(event, events.NonFatalError):
        return [f"{event.label}: {event.info.format()}"]
    if isinstance(event, events.FatalError):
        return [f"{event.exception}"]
    return [
        f"{event.recorder.label}: {check.name}: {check.failure_info.failure.message}\n"
        f"{check.failure_info.code_sample}"
        for check in _all_checks(event)
        if check.failure_info is not None
    ]


def checks(event: Any) -> set[str]:
    """The names of the checks that were made."""
    return {check.name for check in _all_checks(event)}


def _all_checks(event: Any) -> list[Any]:
    if not isinstance(event, events.ScenarioFinished):
        return []
    return [check for made in event.recorder.checks.values() for check in made]
