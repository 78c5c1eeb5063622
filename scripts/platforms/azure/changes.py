"""What a deployment would change, for people: Azure's what-if, one line a resource.

Source: REST spec Microsoft.Resources deployments.json, WhatIfChange and WhatIfPropertyChange.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WORDS = {
    "Create": "+ create",
    "Modify": "~ change",
    "Delete": "- delete",
    "Deploy": "~ deploy",
    "NoChange": "= keep",
    "Ignore": ". leave alone",
    "Unsupported": "? cannot tell",
}


def lines(changes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The changes, what matters first; a change of a property below its resource."""
    order = list(WORDS)
    for change in sorted(changes, key=lambda item: order.index(str(item["changeType"]))):
        word = WORDS[str(change["changeType"])]
        yield f"  {word:<15} {_named(str(change['resourceId']))}"
        if change["changeType"] == "Modify":
            yield from _properties(change.get("delta") or ())


def summary(changes: Sequence[Mapping[str, Any]], group: str) -> str:
    """The counts in a sentence."""
    counts = {
        kind: sum(1 for item in changes if item["changeType"] == kind)
        for kind in ("Create", "Modify", "Delete", "Deploy")
    }
    words = {
        "Create": "to create",
        "Modify": "to change",
        "Delete": "to delete",
        "Deploy": "to deploy",
    }
    told = [f"{count} {words[kind]}" for kind, count in counts.items() if count]
    return f"{group}: {', '.join(told) if told else 'nothing would change'}"


def _named(resource_id: str) -> str:
    """`Microsoft.Storage/storageAccounts kilnamlsa`, below what it belongs to."""
    _, _, rest = resource_id.rpartition("/providers/")
    namespace, *parts = rest.split("/")
    kind = "/".join([namespace, *parts[0::2]])
    scope = resource_id.rpartition("/providers/")[0]
    on = f" on {scope.rpartition('/')[2]}" if "/providers/" in scope else ""
    return f"{kind} {'/'.join(parts[1::2])}{on}"


def _properties(delta: Sequence[Mapping[str, Any]], above: str = "") -> Iterator[str]:
    for item in delta:
        if item["propertyChangeType"] == "NoEffect":
            continue  # Azure's own, which a template does not change
        name = f"{above}{item['path']}"
        if item.get("children"):
            yield from _properties(item["children"], f"{name}.")
        else:
            yield f"      {name}: {_short(item.get('before'))} -> {_short(item.get('after'))}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
