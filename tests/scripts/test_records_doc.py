"""docs/records.md: its schemas are valid, complete, and what records are held against."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from scripts.records import PIPELINE, PREPARING, STAGES
from tests.records_schema import schemas, sections, validate, validate_folder
from tests.scripts.standin import KILN


def test_every_stage_has_a_schema_that_is_valid() -> None:
    found = schemas()
    assert set(found) == {"record", "failed", "outcome", *PREPARING, *PIPELINE, *STAGES}
    for schema in found.values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", [*PREPARING, *PIPELINE, *STAGES, "record", "failed", "outcome"])
def test_every_field_is_told_in_a_sentence(name: str) -> None:
    text = sections()[name]
    told = re.findall(r"^- `(\w+)`: .+\.$", text, flags=re.MULTILINE)
    assert told == list(schemas()[name]["properties"])


def test_the_records_of_a_release_are_valid() -> None:
    assert validate_folder(KILN) == sorted(f"{stage}.json" for stage in STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_field_too_many_or_too_few_is_found(stage: str) -> None:
    record: dict[str, Any] = json.loads((KILN / f"{stage}.json").read_text())
    with pytest.raises(ValidationError, match="surplus"):
        validate(stage, {**record, "surplus": 1})
    for name in schemas()[stage]["required"]:
        with pytest.raises(ValidationError, match=name):
            validate(stage, {key: value for key, value in record.items() if key != name})


def test_failed_records_may_hold_figures_but_nothing_else() -> None:
    envelope = {
        "verb": "load",
        "outcome": "failed",
        "code": 3,
        "message": "p95 is 812 ms, over LOAD_P95_MS=500",
        "mend": "",
        "time": "2025-03-14T09:00:11Z",
        "duration_seconds": 1.5,
    }
    validate("load", envelope)
    validate("load", {**envelope, "p95_ms": 812.0})
    with pytest.raises(ValidationError):
        validate("load", {**envelope, "p96_ms": 812.0})
    with pytest.raises(ValidationError):
        validate("load", {**envelope, "code": "3"})
    validate("outcome", envelope)
