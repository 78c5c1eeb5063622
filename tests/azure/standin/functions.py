"""The functions that templates of ours use, evaluated as ARM does; any other is refused.

Source: https://learn.microsoft.com/azure/azure-resource-manager/templates/template-functions
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.azure.standin.expressions import (
    Access,
    Call,
    Literal,
    Node,
    invalid,
    is_expression,
    parse,
)
from tests.azure.standin.messages import Json

#: guid() is a version 5 UUID in this namespace. Source: Azure/bicep and its tests.
GUIDS = uuid.UUID("11fb06fb-712d-4ddd-98c7-e71bbd588830")


class Deferred(Exception):
    """The value is known only while the deployment runs."""


Reference = Callable[[str, "str | None", bool], Any]


@dataclass
class Scope:
    """What an expression may look at; `reference` None: not at this place of a template."""

    parameters: dict[str, Any]
    variables: Json
    group: Json
    subscription: Json
    reference: Reference | None = None
    known: dict[str, Any] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)

    def at_run(self, reference: Reference) -> Scope:
        """The same with reference()."""
        return Scope(
            self.parameters, self.variables, self.group, self.subscription, reference, self.known
        )

    def value(self, given: Any) -> Any:
        """A value of the template with all its expressions evaluated, those in names too."""
        if isinstance(given, dict):
            return {self.value(name): self.value(each) for name, each in given.items()}
        if isinstance(given, list):
            return [self.value(each) for each in given]
        if is_expression(given):
            return self.node(parse(given))
        if isinstance(given, str) and given.startswith("[["):
            return given[1:]
        return given

    def early(self, given: Any) -> tuple[Any, bool]:
        """As `value`, but what only a run knows stays an expression; whether all was known."""
        if isinstance(given, dict):
            pairs = {name: self.early(each) for name, each in given.items()}
            known = all(each[1] for each in pairs.values())
            return {self.value(name): each[0] for name, each in pairs.items()}, known
        if isinstance(given, list):
            items = [self.early(each) for each in given]
            return [each[0] for each in items], all(each[1] for each in items)
        try:
            return self.value(given), True
        except Deferred:
            return given, False

    def variable(self, name: str) -> Any:
        names = {each.lower(): each for each in self.variables}
        key = names.get(name.lower())
        if key is None:
            raise invalid(f"The template variable '{name}' is not found")
        if key not in self.known:
            if key in self.busy:
                raise invalid(f"The template variable '{name}' refers to itself")
            self.busy.add(key)
            # A variable is computed before anything runs.
            before, self.reference = self.reference, None
            try:
                self.known[key] = self.value(self.variables[key])
            finally:
                self.reference = before
                self.busy.discard(key)
        return self.known[key]

    def node(self, node: Node) -> Any:
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Access):
            return _member(self.node(node.target), self.node(node.key))
        if node.name.lower() == "if":
            # Only the branch that is taken is evaluated.
            _count(node, 3, 3)
            return self.node(node.arguments[1 if _flag(node, self.node(node.arguments[0])) else 2])
        function = FUNCTIONS.get(node.name.lower())
        if function is None:
            raise invalid(
                f"The template function '{node.name}' is not valid. Please see "
                "https://aka.ms/arm-functions for usage details"
            )
        least, most, body = function
        _count(node, least, most)
        return body(self, node, [self.node(argument) for argument in node.arguments])


def _count(node: Call, least: int, most: int | None) -> None:
    count = len(node.arguments)
    if count < least or (most is not None and count > most):
        raise invalid(
            f"Unable to evaluate template language function '{node.name}': function requires "
            f"{least if least == most else f'{least} or more'} argument(s) while '{count}' were provided. "
            f"Please see https://aka.ms/arm-functions/#{node.name.lower()} for usage details"
        )


def _wrong(node: Call, what: object) -> Exception:
    return invalid(
        f"Unable to evaluate template language function '{node.name}': the provided value '{what}' is "
        "not of the expected type"
    )


def _flag(node: Call, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(node, value)
    return value


def _text(node: Call, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(node, value)
    return value


def _member(target: Any, key: Any) -> Any:
    if isinstance(target, list) and isinstance(key, int):
        if 0 <= key < len(target):
            return target[key]
        raise invalid(f"The language expression property array index '{key}' is out of bounds")
    if isinstance(target, dict) and isinstance(key, str):
        for name, value in target.items():
            if name.lower() == key.lower():
                return value
        raise invalid(
            f"The language expression property '{key}' doesn't exist, available properties are "
            f"'{', '.join(target)}'"
        )
    raise invalid(f"The language expression property '{key}' can't be evaluated")


def _parameters(scope: Scope, node: Call, given: list[Any]) -> Any:
    for name, value in scope.parameters.items():
        if name.lower() == str(given[0]).lower():
            return value
    raise invalid(f"The template parameter '{given[0]}' is not found")


def _variables(scope: Scope, node: Call, given: list[Any]) -> Any:
    return scope.variable(_text(node, given[0]))


def _reference(scope: Scope, node: Call, given: list[Any]) -> Any:
    if scope.reference is None:
        raise invalid(
            "The template function 'reference' is not expected at this location. Please see "
            "https://aka.ms/arm-functions for usage details"
        )
    full = len(given) == 3 and str(given[2]).lower() == "full"
    version = _text(node, given[1]) if len(given) > 1 else None
    return scope.reference(_text(node, given[0]), version, full)


def _typed(node: Call, base: str, given: list[Any]) -> str:
    """`base`/providers/<type>/<names>, types and names one after the other."""
    kind, *names = [_text(node, each) for each in given]
    namespace, *types = kind.split("/")
    if not types or len(types) != len(names):
        raise invalid(
            f"Unable to evaluate template language function '{node.name}': the type '{kind}' requires "
            f"'{len(types)}' resource name argument(s)"
        )
    pairs = [part for pair in zip(types, names, strict=True) for part in pair]
    return "/".join([f"{base}/providers/{namespace}", *pairs])


def _resource_id(scope: Scope, node: Call, given: list[Any]) -> str:
    return _typed(node, str(scope.group["id"]), given)


def _subscription_resource_id(scope: Scope, node: Call, given: list[Any]) -> str:
    return _typed(node, str(scope.subscription["id"]), given)


def _concat(scope: Scope, node: Call, given: list[Any]) -> Any:
    if all(isinstance(each, list) for each in given):
        return [item for each in given for item in each]
    if any(not isinstance(each, str | int) or isinstance(each, bool) for each in given):
        raise _wrong(node, given)
    return "".join(str(each) for each in given)


def _format(scope: Scope, node: Call, given: list[Any]) -> str:
    text, *values = given

    def place(match: re.Match[str]) -> str:
        at = int(match[1])
        if at >= len(values):
            raise _wrong(node, match[0])
        return str(values[at])

    return re.sub(r"\{(\d+)\}", place, _text(node, text))


def _guid(scope: Scope, node: Call, given: list[Any]) -> str:
    return str(uuid.uuid5(GUIDS, "-".join(_text(node, each) for each in given)))


def _empty(scope: Scope, node: Call, given: list[Any]) -> bool:
    if given[0] is not None and not isinstance(given[0], str | list | dict):
        raise _wrong(node, given[0])
    return not given[0]


def _json(scope: Scope, node: Call, given: list[Any]) -> Any:
    try:
        return json.loads(_text(node, given[0]))
    except ValueError:
        raise _wrong(node, given[0]) from None


def _create_object(scope: Scope, node: Call, given: list[Any]) -> Json:
    if len(given) % 2:
        raise _wrong(node, given[-1])
    return dict(zip(given[0::2], given[1::2], strict=True))


Body = Callable[[Scope, Call, list[Any]], Any]
#: By name in lower case: the least and the most arguments (None: any number), and what it does.
FUNCTIONS: dict[str, tuple[int, int | None, Body]] = {
    "and": (2, None, lambda scope, node, given: all(_flag(node, each) for each in given)),
    "concat": (1, None, _concat),
    "createarray": (0, None, lambda scope, node, given: given),
    "createobject": (0, None, _create_object),
    "empty": (1, 1, _empty),
    "format": (1, None, _format),
    "guid": (1, None, _guid),
    "json": (1, 1, _json),
    "not": (1, 1, lambda scope, node, given: not _flag(node, given[0])),
    "null": (0, 0, lambda scope, node, given: None),
    "parameters": (1, 1, _parameters),
    "reference": (1, 3, _reference),
    "resourcegroup": (0, 0, lambda scope, node, given: scope.group),
    "resourceid": (2, None, _resource_id),
    "subscription": (0, 0, lambda scope, node, given: scope.subscription),
    "subscriptionresourceid": (2, None, _subscription_resource_id),
    "true": (0, 0, lambda scope, node, given: True),
    "variables": (1, 1, _variables),
}
