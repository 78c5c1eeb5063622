"""What a request's body may hold: names, kinds of value, and which must be there.

A shape is `TEXT`, `FLAG`, `NUMBER`, `ANY`, a set of allowed texts, `{name: shape}`, `[shape]` for a
list, `Map(shape)` for any names, or one of these in `Optional`. `SERVER` is what Azure itself puts
there and a client may send back: it is looked at by nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.azure.standin.messages import Refused


@dataclass(frozen=True)
class Kind:
    """A plain value of these types."""

    name: str
    types: tuple[type, ...]


@dataclass(frozen=True)
class Optional:
    """May be missing or null."""

    shape: Any


@dataclass(frozen=True)
class Map:
    """An object whose names are the user's."""

    shape: Any


TEXT = Kind("String", (str,))
FLAG = Kind("Boolean", (bool,))
NUMBER = Kind("Integer", (int, float))
ANY = Kind("Object", (object,))
SERVER = Optional(ANY)
TAGS = Optional(Map(TEXT))
#: What every tracked resource may have beside its properties.
TRACKED = {"location": TEXT, "tags": TAGS, "id": SERVER, "name": SERVER, "type": SERVER}


def check_shape(value: Any, shape: Any, where: str) -> None:
    """Refused (400) with the path of the first thing that is unknown, missing or of the wrong kind.

    The codes are ARM's, the sentences *assumed*: each provider words this in its own way.
    """
    if isinstance(shape, Optional):
        if value is not None:
            check_shape(value, shape.shape, where)
        return
    if isinstance(shape, Kind):
        flag = isinstance(value, bool) and bool not in shape.types and object not in shape.types
        if not isinstance(value, shape.types) or flag:
            raise _wrong(where, f"expected {shape.name}, got {value!r}")
    elif isinstance(shape, set | frozenset):
        lowered = {each.lower() for each in shape}
        if not isinstance(value, str) or value.lower() not in lowered:
            raise _wrong(where, f"{value!r} is not one of {', '.join(sorted(shape))}")
    elif isinstance(shape, Map):
        if not isinstance(value, dict):
            raise _wrong(where, f"expected Object, got {value!r}")
        for name, each in value.items():
            check_shape(each, shape.shape, f"{where}.{name}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise _wrong(where, f"expected Array, got {value!r}")
        for at, each in enumerate(value):
            check_shape(each, shape[0], f"{where}[{at}]")
    else:
        _check_object(value, shape, where)


def _check_object(value: Any, shape: dict[str, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(where, f"expected Object, got {value!r}")
    names = {name.lower(): name for name in shape}
    given = {}
    for name, each in value.items():
        known = names.get(name.lower())
        if known is None:
            raise Refused(
                400,
                "InvalidRequestContent",
                f"The request content was invalid and could not be deserialized: 'Could not find member "
                f"'{name}' on object of type '{where}'.'.",
            )
        given[known] = each
    for name, inner in shape.items():
        if name in given or isinstance(inner, Optional):
            check_shape(given.get(name), inner, f"{where}.{name}")
        else:
            raise Refused(
                400,
                "InvalidRequestContent",
                f"The request content was invalid: the required property '{name}' of '{where}' is missing.",
            )


def _wrong(where: str, what: str) -> Refused:
    return Refused(
        400, "InvalidRequestContent", f"The request content was invalid at '{where}': {what}."
    )
