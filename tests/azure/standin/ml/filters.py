"""The OData filters and orders that azureml-core writes, and no others.

Source: azureml-core `_restclient/_odata/*.py`. Values stand in double quotes or bare.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.azure.standin.messages import Json
from tests.azure.standin.ml.workspace import user_error

TOKEN = re.compile(r'\s*(\(|\)|"[^"]*"|[^\s()"]+(?: \d{2}:[\d:.+]+)?)')
Test = Callable[[Json], bool]


def matching(items: list[Json], text: str | None) -> list[Json]:
    """The items a filter lets through; Refused (400) where it is none of ours."""
    if not text:
        return items
    tokens = TOKEN.findall(text)
    if "".join(tokens).replace(" ", "") != re.sub(r"\s", "", text):
        raise _bad(text)
    try:
        test = _either(tokens)
    except IndexError:
        raise _bad(text) from None
    if tokens:
        raise _bad(text)
    return [item for item in items if test(item)]


def ordered(items: list[Json], text: str | None) -> list[Json]:
    """The items in the order asked for; a value that is missing comes last."""
    for part in reversed((text or "").split(",")):
        name, _, way = part.strip().partition(" ")
        if not name:
            continue
        known = [item for item in items if _value(item, name) is not None]
        rest = [item for item in items if _value(item, name) is None]
        items = sorted(known, key=lambda item: _value(item, name), reverse=way == "desc") + rest
    return items


def _bad(text: str) -> Exception:
    return user_error(400, f"The filter '{text}' is not valid.")


def _either(tokens: list[str]) -> Test:
    tests = [_both(tokens)]
    while tokens and tokens[0] == "or":
        tokens.pop(0)
        tests.append(_both(tokens))
    return lambda item: any(test(item) for test in tests)


def _both(tokens: list[str]) -> Test:
    tests = [_one(tokens)]
    while tokens and tokens[0] == "and":
        tokens.pop(0)
        tests.append(_one(tokens))
    return lambda item: all(test(item) for test in tests)


def _one(tokens: list[str]) -> Test:
    first = tokens.pop(0)
    if first == "(":
        test = _either(tokens)
        if tokens.pop(0) != ")":
            raise IndexError
        return test
    operator, value = tokens.pop(0), tokens.pop(0)
    wanted: str | None = None if value == "null" else value.strip('"')
    if operator not in ("eq", "ne", "ge", "gt"):
        raise IndexError
    return lambda item: _compare(item, first, operator, wanted)


def _compare(item: Json, name: str, operator: str, wanted: str | None) -> bool:
    group, slash, key = name.partition("/")
    if slash and wanted is None:
        # "Tags/x ne null or Tags/x eq null" asks whether there is such a tag.
        return key in (item.get(_field(group)) or {}) and operator == "ne"
    value = _value(item, name)
    if operator == "eq":
        return bool(value == wanted)
    if operator == "ne":
        return bool(value != wanted)
    if value is None or wanted is None:
        return False
    text = str(value).replace("T", " ")
    return text >= wanted.replace("T", " ") if operator == "ge" else text > wanted.replace("T", " ")


def _field(name: str) -> str:
    return name[:1].lower() + name[1:]


def _value(item: Json, name: str) -> Any:
    group, slash, key = name.partition("/")
    return (item.get(_field(group)) or {}).get(key) if slash else item.get(_field(name))
