"""A template and its parameters, checked and taken apart into resources in the order of making them.

Source: https://learn.microsoft.com/azure/azure-resource-manager/templates/syntax and the messages that
azure-cli's recordings of resource/ show.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from tests.azure.standin.access import ASSIGNMENT
from tests.azure.standin.expressions import Call, calls, invalid
from tests.azure.standin.functions import Deferred, Scope
from tests.azure.standin.messages import Json, Refused
from tests.azure.standin.resources import ResourceId

SCHEMAS = (
    "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
    "https://schema.management.azure.com/schemas/2015-01-01/deploymentTemplate.json#",
)
TYPES: dict[str, tuple[str, type]] = {
    "string": ("String", str),
    "securestring": ("SecureString", str),
    "int": ("Int", int),
    "bool": ("Bool", bool),
    "object": ("Object", dict),
    "secureobject": ("SecureObject", dict),
    "array": ("Array", list),
}
TEMPLATE = {
    "$schema",
    "contentVersion",
    "metadata",
    "parameters",
    "variables",
    "resources",
    "outputs",
}
PARAMETER = {
    "type",
    "defaultValue",
    "allowedValues",
    "minValue",
    "maxValue",
    "minLength",
    "maxLength",
    "metadata",
}
RESOURCE = {
    "type",
    "apiVersion",
    "name",
    "metadata",
    "comments",
    "condition",
    "scope",
    "location",
    "tags",
    "kind",
    "sku",
    "identity",
    "zones",
    "plan",
    "dependsOn",
    "properties",
}
#: What is the template's and not the resource's.
OURS = ("type", "apiVersion", "name", "metadata", "comments", "condition", "scope", "dependsOn")
OUTPUT = {"type", "value", "condition", "metadata"}


@dataclass(frozen=True)
class Planned:
    """A resource of the template; `body` still holds the expressions only a run can evaluate."""

    id: str
    type: str
    version: str
    body: Json
    #: Whether all of the body is known before the run.
    known: bool
    source: Json


@dataclass(frozen=True)
class Plan:
    """What a template comes to; `resources` in the order of making them, conditions applied."""

    scope: Scope
    resources: tuple[Planned, ...]
    needs: dict[str, set[str]]
    outputs: Json
    #: Parameters as a deployment shows them: secure ones without their value.
    parameters: Json

    def full_body(self, planned: Planned, scope: Scope) -> Json:
        """The resource's body while the deployment runs."""
        return _body(scope.value({k: v for k, v in planned.source.items() if k not in OURS}))


def _members(given: Any, known: set[str], kind: str, path: str) -> Json:
    if not isinstance(given, dict):
        raise invalid(f"The template {kind} at '{path}' is not an object")
    for name in given:
        if name not in known:
            raise Refused(
                400,
                "InvalidRequestContent",
                "The request content was invalid and could not be deserialized: 'Could not find member "
                f"'{name}' on object of type '{kind}'. Path '{path}.{name}'.'.",
            )
    return given


def _kind(given: Json, name: str) -> tuple[str, type]:
    try:
        return TYPES[str(given["type"]).lower()]
    except KeyError:
        raise invalid(
            f"The template parameter or output '{name}' has no valid type; it is one of "
            f"{', '.join(shown for shown, _ in TYPES.values())}"
        ) from None


def _fits(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _check_parameter(name: str, definition: Json, value: Any) -> None:
    shown, kind = _kind(definition, name)
    if not _fits(value, kind):
        raise invalid(
            f"Template parameter JToken type is not valid. Expected '{shown}'. Actual "
            f"'{type(value).__name__}'. The parameter is '{name}'. Please see "
            "https://aka.ms/arm-deploy/#parameter-file for usage details"
        )
    allowed = definition.get("allowedValues")
    if allowed is not None and value not in allowed:
        raise invalid(
            f"The provided value for the template parameter '{name}' is not valid. The value '{value}' "
            f"is not part of the allowed value(s): '{','.join(map(str, allowed))}'."
        )
    size = len(value) if isinstance(value, str | list) else value
    for limit in ("minLength", "maxLength", "minValue", "maxValue"):
        bound = definition.get(limit)
        if bound is not None and (size < bound if limit.startswith("min") else size > bound):
            what = "length" if "Length" in limit else "value"
            raise invalid(
                f"The provided value for the template parameter '{name}' is not valid. The {what} "
                f"'{size}' is beyond {limit} '{bound}'"
            )


def _parameters(scope: Scope, template: Json, given: Json) -> Json:
    """Fill the scope's parameters; returns them as a deployment shows them."""
    defined = template.get("parameters") or {}
    unknown = [name for name in given if name.lower() not in {each.lower() for each in defined}]
    if unknown:
        raise invalid(
            "The following parameters were supplied, but do not correspond to any parameters defined in "
            f"the template: '{', '.join(unknown)}'. The parameters defined in the template are: "
            f"'{', '.join(defined)}'"
        )
    supplied = {name.lower(): value for name, value in given.items()}
    missing = [
        name
        for name, definition in defined.items()
        if name.lower() not in supplied and "defaultValue" not in definition
    ]
    if missing:
        raise invalid(
            f"The value for the template parameter '{missing[0]}' is not provided. Please see "
            "https://aka.ms/arm-create-parameter-file for usage details"
        )
    shown: Json = {}
    for name, definition in defined.items():
        _members(definition, PARAMETER, "TemplateInputParameter", f"parameters.{name}")
        if name.lower() in supplied:
            entry = supplied[name.lower()]
            if not isinstance(entry, dict) or "value" not in entry:
                raise invalid(f"The template parameter '{name}' is given without a value")
            value = entry["value"]
        else:
            value = scope.value(definition["defaultValue"])
        _check_parameter(name, definition, value)
        scope.parameters[name] = value
        text = _kind(definition, name)[0]
        shown[name] = (
            {"type": text} if text.startswith("Secure") else {"type": text, "value": value}
        )
    return shown


def _resource_id(scope: Scope, source: Json) -> str:
    kind, name = str(source["type"]), scope.value(source["name"])
    namespace, *types = kind.split("/")
    names = str(name).split("/")
    if not types or len(types) != len(names):
        raise invalid(
            f"The template resource '{name}' for type '{kind}' has incorrect segment lengths. A nested "
            "resource type must have identical number of segments as its resource name. A root resource "
            "type must have segment length one greater than its resource name. Please see "
            "https://aka.ms/arm-syntax-resources for usage details"
        )
    base = scope.value(source["scope"]) if "scope" in source else scope.group["id"]
    pairs = [part for pair in zip(types, names, strict=True) for part in pair]
    return "/".join([f"{base}/providers/{namespace}", *pairs])


def _body(given: Json) -> Json:
    return {name: value for name, value in given.items() if value is not None}


def _no_reference(resource: str, version: str | None, full: bool) -> Any:
    raise Deferred


def _planned(scope: Scope, source: Any, at: int) -> tuple[Planned, bool]:
    path = f"properties.template.resources[{at}]"
    _members(source, RESOURCE, "TemplateResource", path)
    for name in ("type", "apiVersion", "name"):
        if not isinstance(source.get(name), str):
            raise invalid(f"The template resource at '{path}' has no valid '{name}'")
    if "scope" in source and source["type"].lower() != ASSIGNMENT.lower():
        raise invalid(f"The template resource at '{path}' is no extension: it cannot have a scope")
    resource_id = _resource_id(scope, source)
    wanted = scope.value(source.get("condition", True))
    if not isinstance(wanted, bool):
        raise invalid(f"The condition of the template resource '{resource_id}' is no boolean")
    late = scope.at_run(_no_reference)
    parts = {name: each for name, each in source.items() if name not in OURS}
    if not wanted:
        # Nothing of it is evaluated, but its functions must be known.
        return Planned(resource_id, source["type"], source["apiVersion"], {}, False, source), False
    body, known = late.early(parts)
    planned = Planned(resource_id, source["type"], source["apiVersion"], _body(body), known, source)
    return planned, True


def _dependencies(scope: Scope, planned: Planned, ids: dict[str, str], made: set[str]) -> set[str]:
    """Keys of what must be there first; `ids` are all of the template by id and by name."""
    found = set()
    for text in planned.source.get("dependsOn") or []:
        key = str(scope.value(text)).lower()
        if key not in ids:
            raise invalid(
                f"The resource '{scope.value(text)}' is not defined in the template. Please see "
                "https://aka.ms/arm-syntax for usage details"
            )
        found.add(ids[key])
    for call in calls({k: v for k, v in planned.source.items() if k not in OURS}, "reference"):
        key = str(scope.node(call.arguments[0])).lower()
        if key in ids:
            found.add(ids[key])
            _check_version(call, ids[key], made, f"resource '{_short(planned.id)}'")
        elif len(call.arguments) == 1:
            raise invalid(
                f"The resource '{key}' referenced by '{planned.id}' is not defined in the template and "
                "has no apiVersion. Please see https://aka.ms/arm-functions/#reference for usage details"
            )
    return found - {planned.id.lower()}


def _check_version(call: Call, key: str, made: set[str], where: str) -> None:
    """Only what this deployment makes has an apiVersion of its own for reference().

    Source: Azure/bicep#1631 for outputs, Azure/bicep#2371 and #3990 for resources.
    """
    if len(call.arguments) == 1 and key not in made:
        raise invalid(
            f"The template {where} reference to '{_short(key)}' requires an API version. Please see "
            "https://aka.ms/arm-template for usage details"
        )


def _short(resource_id: str) -> str:
    """<type>/<name>."""
    target = ResourceId.parse(resource_id)
    return f"{target.type}/{'/'.join(target.names)}"


def make_plan(properties: Json, group: Json, subscription: Json) -> Plan:
    """Take a deployment's properties apart; Refused (InvalidTemplate) as ARM does."""
    template = copy.deepcopy(properties.get("template"))
    if template is None:
        raise invalid("The template is missing")
    _members(template, TEMPLATE, "Template", "properties.template")
    if template.get("$schema") not in SCHEMAS:
        raise invalid(f"The template schema '{template.get('$schema')}' is not supported")
    if not isinstance(template.get("contentVersion"), str):
        raise invalid("The template has no contentVersion")
    if not isinstance(template.get("resources"), list):
        raise invalid("The template has no resources")
    scope = Scope({}, template.get("variables") or {}, group, subscription)
    shown = _parameters(scope, template, properties.get("parameters") or {})
    for name in scope.variables:
        scope.variable(name)
    every = [_planned(scope, source, at) for at, source in enumerate(template["resources"])]
    ids: dict[str, str] = {}
    for planned, _ in every:
        if planned.id.lower() in ids:
            raise invalid(
                f"The resource '{planned.id}' is defined multiple times in a template. Please see "
                "https://aka.ms/arm-syntax-resources for usage details"
            )
        ids[planned.id.lower()] = planned.id.lower()
        ids.setdefault(ResourceId.parse(planned.id).name.lower(), planned.id.lower())
    wanted = {planned.id.lower(): planned for planned, condition in every if condition}
    made = set(wanted)
    needs = {planned.id.lower(): _dependencies(scope, planned, ids, made) for planned, _ in every}
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as cycle:
        raise invalid(
            f"Circular dependency detected on resource: '{cycle.args[1][0]}'. Please see "
            "https://aka.ms/arm-syntax-resources for usage details"
        ) from None
    outputs = template.get("outputs") or {}
    for name, output in outputs.items():
        _members(output, OUTPUT, "TemplateOutputParameter", f"properties.template.outputs.{name}")
        _kind(output, name)
        if scope.value(output.get("condition", True)):
            scope.at_run(_no_reference).early(output["value"])
            for call in calls(output["value"], "reference"):
                key = str(scope.node(call.arguments[0])).lower()
                _check_version(call, ids.get(key, key), made, "output")
    chosen = tuple(wanted[key] for key in order if key in wanted)
    return Plan(scope, chosen, needs, outputs, shown)


def make_outputs(plan: Plan, scope: Scope) -> Json:
    """The outputs once all is made; those whose condition is false are left out."""
    given: Json = {}
    for name, output in plan.outputs.items():
        if not plan.scope.value(output.get("condition", True)):
            continue
        shown, kind = _kind(output, name)
        value = scope.value(output["value"])
        if not _fits(value, kind):
            raise Refused(
                400,
                "DeploymentOutputEvaluationFailed",
                "Unable to evaluate template outputs: "
                f"'{name}'. The value is of type '{type(value).__name__}', expected '{shown}'.",
            )
        given[name] = (
            {"type": shown} if shown.startswith("Secure") else {"type": shown, "value": value}
        )
    return given
