"""The schemas of docs/records.md, to hold records against.

validate("data", record)        one record, done, kept or failed
validate_folder(build / "local")  every record there is; returns their names
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "records.md"


def sections() -> dict[str, str]:
    """The document's text by the `$id` of the schema in it."""
    parts = re.split(r"^## ", DOCUMENT.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {json.loads(_block(part))["$id"]: part for part in parts}


def _block(text: str) -> str:
    found = re.findall(r"^```json\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{text.splitlines()[0]}: one schema, not {len(found)}"
    return str(found[0])


def schemas() -> dict[str, dict[str, Any]]:
    """The schemas by `$id`, which is the record's name."""
    return {name: json.loads(_block(text)) for name, text in sections().items()}


def _failed(name: str, known: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A failed record has its own fields, and may have the figures of the record it is not."""
    figures = known[name]["properties"]
    return {"$ref": "failed", "properties": figures, "unevaluatedProperties": False}


def validate(name: str, record: Mapping[str, Any]) -> None:
    """Hold a record against its schema; jsonschema's ValidationError names what differs."""
    known = schemas()
    registry: Registry[Any] = Registry().with_resources(
        (key, Resource.from_contents(schema)) for key, schema in known.items()
    )
    failed = record.get("outcome") == "failed" and name != "outcome"
    schema = _failed(name, known) if failed else known[name]
    Draft202012Validator(schema, registry=registry, format_checker=FormatChecker()).validate(record)


def validate_folder(folder: Path) -> list[str]:
    """Hold every record in `folder` against its schema, and return the files' names."""
    names = []
    for path in sorted(folder.glob("*.json")):
        if path.name == "image.cdx.json":  # the image's bill of materials, named by its record
            continue
        name = path.name.removesuffix(".json").removesuffix(".failed")
        record = json.loads(path.read_text("utf-8"))
        validate(name, record)
        # A rollback replaces the record of `deploy`, and says so.
        assert record["verb"] in (name, "rollback") or name == "outcome"
        names.append(path.name)
    return names
