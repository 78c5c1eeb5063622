"""What a what-if of Azure becomes for a person."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.platforms.azure import changes

pytestmark = pytest.mark.azure

GROUP = "/subscriptions/s/resourceGroups/g"
ACCOUNT = f"{GROUP}/providers/Microsoft.Storage/storageAccounts/kiln"


def _of(kind: str, resource: str = ACCOUNT, **more: Any) -> dict[str, Any]:
    return {"resourceId": resource, "changeType": kind, **more}


def _property(kind: str, path: str, before: Any, after: Any, *children: Any) -> dict[str, Any]:
    found = {"path": path, "propertyChangeType": kind, "before": before, "after": after}
    return {**found, "children": list(children)}


def test_each_kind_of_change_is_a_line_and_what_matters_comes_first() -> None:
    inner = f"{ACCOUNT}/providers/Microsoft.Authorization/roleAssignments/1"
    kinds = ("Ignore", "NoChange", "Unsupported", "Deploy", "Delete", "Modify")
    found = [*(_of(kind) for kind in kinds), _of("Create", inner)]
    shown = list(changes.lines(found))
    assert [line.split("Microsoft.")[0].strip() for line in shown] == [
        *("+ create", "~ change", "- delete", "~ deploy", "= keep", ". leave alone"),
        "? cannot tell",
    ]
    assert shown[0].endswith("Microsoft.Authorization/roleAssignments 1 on kiln")
    assert changes.summary(found, "g") == "g: 1 to create, 1 to change, 1 to delete, 1 to deploy"
    assert changes.summary([_of("NoChange")], "g") == "g: nothing would change"


def test_the_properties_that_change_stand_below_and_no_others() -> None:
    delta = [
        _property("Modify", "sku.name", "Standard_LRS", "Standard_ZRS"),
        _property("NoEffect", "properties.creationTime", "2025-01-01", None),
        _property(
            "Array",
            "properties.rules",
            None,
            None,
            _property("Delete", "0", {"ip": "1.2.3.4"}, None),
        ),
        _property("Create", "tags.note", None, "x" * 100),
    ]
    _, *shown = changes.lines([_of("Modify", delta=delta)])
    assert [line.strip() for line in shown] == [
        "sku.name: Standard_LRS -> Standard_ZRS",
        "properties.rules.0: {'ip': '1.2.3.4'} -> nothing",
        f"tags.note: nothing -> {'x' * 57}...",
    ]
