"""Which function answers which request.

A route names its host, method and path. `{name}` in a path is one segment, `{name...}` the rest; both
reach the function, unquoted, as keyword arguments. ARM is case-insensitive in paths, and so are we.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.azure.standin.messages import Answer, Json, Refused, Request

if TYPE_CHECKING:
    from tests.azure.standin.world import World

Handler = Callable[..., "Answer | Json | list[Any]"]

#: Azure Resource Manager's host.
ARM = "management.azure.com"


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)(\.\.\.)?\}", template)
    text = re.escape(parts[0])
    for name, rest, after in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        text += f"(?P<{name}>{'.+' if rest else '[^/]+'})" + re.escape(after)
    return re.compile(text, re.IGNORECASE)


@dataclass(frozen=True)
class Route:
    """`versions` are the api-versions it knows; none given means that it takes no api-version.

    `source` says where the answer's form is from. A route is called under the world's lock, unless it
    is `slow`: then it takes the lock itself for what needs it.
    """

    host: str
    methods: tuple[str, ...]
    path: str
    versions: tuple[str, ...]
    source: str
    slow: bool
    handler: Handler

    def match(self, request: Request) -> Mapping[str, str] | None:
        """The path's names and the host's, or None if the route is another's."""
        if request.method not in self.methods:
            return None
        host = _pattern(self.host).fullmatch(request.host)
        path = _pattern(self.path).fullmatch(request.path)
        if host is None or path is None:
            return None
        return {n: unquote(v) for n, v in {**host.groupdict(), **path.groupdict()}.items()}


class Routes:
    """All routes, the first that matches being the one; modules add theirs when they are built."""

    def __init__(self) -> None:
        self.all: list[Route] = []
        #: Asked before any route of a host; what they raise is the answer.
        self.gates: dict[str, Callable[[World, Request], None]] = {}

    def add(
        self,
        host: str,
        methods: str,
        path: str,
        *,
        source: str,
        versions: tuple[str, ...] = (),
        slow: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Decorator: answer `methods` ("GET" or "GET PUT") on that host and path."""

        def keep(handler: Handler) -> Handler:
            self.all.append(
                Route(host, tuple(methods.split()), path, versions, source, slow, handler)
            )
            return handler

        return keep

    def find(self, request: Request) -> tuple[Route, Mapping[str, str]]:
        """The route of a request; Refused as ARM does for what it does not know."""
        for route in self.all:
            names = route.match(request)
            if names is not None:
                if route.versions and request.api_version not in route.versions:
                    raise unknown_version(request.path, request.api_version, route.versions)
                return route, names
        raise Refused(
            404, "StandInHasNoSuchRoute", f"{request.method} {request.url}?{request.raw_query}"
        )

    def call(self, world: World, request: Request) -> Answer:
        """What the request's route answers; what it refuses is an answer too."""
        try:
            gate = self.gates.get(request.host)
            if gate is not None:
                with world.lock:
                    gate(world, request)
            route, names = self.find(request)
            if route.slow:
                given = route.handler(world, request, **names)
            else:
                with world.lock:
                    given = route.handler(world, request, **names)
        except Refused as refused:
            return refused.answer()
        return given if isinstance(given, Answer) else Answer(200, given)


def unknown_version(what: str, version: str, known: tuple[str, ...]) -> Refused:
    """ARM's refusal of a missing or unknown api-version.

    Source: Azure/azure-resource-manager-rpc, "API versioning"; message as in azure-cli's recordings.
    """
    if not version:
        return Refused(
            400,
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        )
    return Refused(
        400,
        "InvalidResourceType",
        f"The resource type could not be found in the namespace of '{what}' for api version "
        f"'{version}'. The supported api-versions are '{','.join(known)}'.",
    )
