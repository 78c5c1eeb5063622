"""The expressions in a template: `[if(parameters('a'), variables('b').c, concat('d', 'e'))]`.

Source: https://learn.microsoft.com/azure/azure-resource-manager/templates/template-expressions
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.azure.standin.messages import Refused

_TOKEN = re.compile(r"\s*(?:'((?:[^']|'')*)'|(-?\d+)|([A-Za-z]\w*)|([()\[\],.]))")


@dataclass(frozen=True)
class Literal:
    value: str | int


@dataclass(frozen=True)
class Call:
    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Access:
    """`target.name` or `target[key]`."""

    target: Node
    key: Node


Node = Literal | Call | Access


def invalid(message: str) -> Refused:
    """What ARM says of a template it cannot use."""
    return Refused(
        400, "InvalidTemplate", f"Deployment template validation failed: '{message.rstrip('.')}.'."
    )


def is_expression(text: object) -> bool:
    """Whether ARM evaluates that text; `[[` stands for a text that begins with a bracket."""
    return isinstance(text, str) and text[:1] == "[" and text[:2] != "[[" and text[-1:] == "]"


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        at = 1
        while at < len(text) - 1 and text[at:-1].strip():
            match = _TOKEN.match(text, at, len(text) - 1)
            if match is None:
                raise self.wrong()
            kind = ("text", "number", "name", "sign")[(match.lastindex or 1) - 1]
            self.tokens.append((kind, match[match.lastindex or 1]))
            at = match.end()
        self.tokens.append(("end", ""))

    def wrong(self) -> Refused:
        return invalid(
            f"The language expression '{self.text[1:-1]}' is not valid: the string could not be parsed"
        )

    def take(self, sign: str) -> None:
        if self.tokens.pop(0) != ("sign", sign):
            raise self.wrong()

    def whole(self) -> Node:
        node = self.node()
        if self.tokens[0][0] != "end" or not isinstance(node, Call | Access):
            raise self.wrong()
        return node

    def node(self) -> Node:
        kind, text = self.tokens.pop(0)
        if kind == "text":
            return Literal(text.replace("''", "'"))
        if kind == "number":
            return Literal(int(text))
        if kind != "name":
            raise self.wrong()
        self.take("(")
        arguments: list[Node] = []
        while self.tokens[0] != ("sign", ")"):
            if arguments:
                self.take(",")
            arguments.append(self.node())
        self.take(")")
        node: Node = Call(text, tuple(arguments))
        while self.tokens[0] in (("sign", "."), ("sign", "[")):
            if self.tokens.pop(0)[1] == ".":
                kind, name = self.tokens.pop(0)
                if kind != "name":
                    raise self.wrong()
                node = Access(node, Literal(name))
            else:
                node = Access(node, self.node())
                self.take("]")
        return node


def parse(text: str) -> Node:
    """The expression in brackets as a tree; Refused (InvalidTemplate) if it is none."""
    return _Parser(text).whole()


def calls(value: Any, name: str) -> Iterator[Call]:
    """All calls of a function in the expressions of a value, however deep."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from calls(key, name)
            yield from calls(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from calls(each, name)
    elif is_expression(value):
        yield from _calls(parse(value), name)


def _calls(node: Node, name: str) -> Iterator[Call]:
    if isinstance(node, Call):
        if node.name.lower() == name.lower():
            yield node
        for argument in node.arguments:
            yield from _calls(argument, name)
    elif isinstance(node, Access):
        yield from _calls(node.target, name)
        yield from _calls(node.key, name)
