"""What a deployment would change, as what-if says it.

Source: azure-cli resource/tests/latest/recordings/test_resource_group_level_what_if.yaml; REST spec
Microsoft.Resources deployments.json (WhatIfChange, WhatIfPropertyChange)
"""

from __future__ import annotations

from typing import Any

from tests.azure.standin import generic
from tests.azure.standin.expressions import is_expression
from tests.azure.standin.messages import Json
from tests.azure.standin.resources import ResourceId, ResourceTypes
from tests.azure.standin.templates import Plan, Planned
from tests.azure.standin.world import World

_NOTHING = object()


def _same(one: Any, other: Any) -> bool:
    """Equal as ARM sees it: ids and names of choices in any case, regions in either form."""
    if isinstance(one, str) and isinstance(other, str):
        return one.lower().replace(" ", "") == other.lower().replace(" ", "")
    return bool(one == other)


def _member(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        for each, inner in value.items():
            if each.lower() == name.lower():
                return inner
    return _NOTHING


def _delta(path: str, before: Any, asked: Any, after: Any) -> list[Json]:
    """Property changes from what is there (`before`, or what was `asked` for and is not shown)."""
    if is_expression(after) or after is None:
        # Only the deployment itself will know.
        return []
    if isinstance(after, dict) and isinstance(before, dict):
        found = []
        for name, value in after.items():
            inner = f"{path}.{name}" if path else name
            found += _delta(inner, _member(before, name), _member(asked, name), value)
        return found
    there = asked if before is _NOTHING else before
    if there is _NOTHING:
        return [{"path": path, "propertyChangeType": "Create", "before": None, "after": after}]
    if isinstance(after, list) and isinstance(there, list):
        same = len(after) == len(there) and not any(
            _delta(path, one, _NOTHING, other) if isinstance(other, dict) else not _same(one, other)
            for one, other in zip(there, after, strict=True)
        )
    elif isinstance(after, dict) and isinstance(there, dict):
        return _delta(path, there, _NOTHING, after)
    else:
        same = _same(there, after)
    if same:
        return []
    return [{"path": path, "propertyChangeType": "Modify", "before": there, "after": after}]


def _change(world: World, types: ResourceTypes, planned: Planned, short: bool) -> Json:
    target = ResourceId.parse(planned.id)
    after = {
        "apiVersion": planned.version,
        "id": planned.id,
        "name": target.name,
        "resourceGroup": target.group,
        "type": planned.type,
        **planned.body,
    }
    found = world.resources.get(target.key)
    change: Json = {"resourceId": planned.id, "changeType": "Create"}
    if found is None:
        return change if short else change | {"before": None, "after": after, "delta": None}
    before = generic.shown(world, types, found)
    asked = generic.asked(world, planned.id)
    delta = _delta("", before, asked, planned.body)
    change["changeType"] = "Modify" if delta else "NoChange"
    if short:
        change["changeType"] = "Deploy"
        return change
    shown = {"apiVersion": planned.version, "resourceGroup": target.group, **before}
    return change | {"before": shown, "after": generic.merged(shown, planned.body), "delta": delta}


def _texts(value: Any) -> set[str]:
    """All texts in a value, however deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return {text for each in value for text in _texts(each)}
    return {value} if isinstance(value, str) and value else set()


def _hidden(value: Any, secrets: set[str]) -> Any:
    """The value with those texts as Azure shows what is secure."""
    if isinstance(value, dict):
        return {name: _hidden(each, secrets) for name, each in value.items()}
    if isinstance(value, list):
        return [_hidden(each, secrets) for each in value]
    return "*******" if isinstance(value, str) and value in secrets else value


def changes(
    world: World, types: ResourceTypes, plan: Plan, group: str, *, short: bool
) -> list[Json]:
    """All changes, and the group's other resources as ignored; what came in secure stays hidden."""
    secure = [name for name, each in plan.parameters.items() if "value" not in each]
    secrets = _texts([plan.scope.parameters[name] for name in secure])
    return [_hidden(each, secrets) for each in _changes(world, types, plan, group, short)]


def _changes(world: World, types: ResourceTypes, plan: Plan, group: str, short: bool) -> list[Json]:
    found = [_change(world, types, planned, short) for planned in plan.resources]
    planned = {each.id.lower() for each in plan.resources}
    for resource in generic.all_below(world, group):
        if str(resource["id"]).lower() not in planned:
            before = generic.shown(world, types, resource)
            change: Json = {"resourceId": resource["id"], "changeType": "Ignore"}
            found.append(change if short else change | {"before": before, "after": before})
    return found
