"""ARM's resources: what every type has in common, and how a type says what is its own.

Ids keep the caller's spelling and are compared in lower case. Direct PUT, GET, PATCH and DELETE end
here, and so do the resources of a template, so both are checked and made alike.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.azure.standin.messages import Json, Refused
from tests.azure.standin.world import World


@dataclass(frozen=True)
class ResourceId:
    """A resource's id taken apart: `type` as "Microsoft.X/a/b", `names` of each of its levels.

    `scope` is what stands before the last "/providers/": a group, a subscription or a resource.
    """

    text: str
    scope: str
    type: str
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> ResourceId:
        scope, _, rest = text.rpartition("/providers/")
        namespace, *parts = rest.split("/")
        types = "/".join([namespace, *parts[0::2]])
        return cls(text, scope, types, tuple(parts[1::2]))

    @property
    def name(self) -> str:
        return self.names[-1]

    @property
    def key(self) -> str:
        return self.text.lower()

    @property
    def subscription(self) -> str:
        return self.text.split("/")[2]

    @property
    def group(self) -> str:
        found = re.match(r"/subscriptions/[^/]+/resourcegroups/([^/]+)", self.text, re.IGNORECASE)
        return found[1] if found else ""

    @property
    def parent(self) -> str | None:
        """The id of the resource this one is a child of."""
        return self.text.rsplit("/", 2)[0] if len(self.names) > 1 else None


def _as_asked(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    return body


def _nothing(world: World, target: ResourceId, body: Json) -> None: ...


@dataclass(frozen=True)
class ResourceType:
    """What the stand-in knows of one type.

    `check` refuses what Azure refuses (names, required and unknown properties) and changes nothing;
    validate and what-if call it too. `put` gives what GET will show, id, name and type left out: it
    may start real things. `pending` seconds pass before an asynchronous PUT is done (0: done at once).
    """

    name: str
    versions: tuple[str, ...]
    source: str
    check: Callable[[World, ResourceId, Json], None] = _nothing
    put: Callable[[World, ResourceId, Json, Json | None], Json] = _as_asked
    delete: Callable[[World, ResourceId, Json], None] = _nothing
    #: What GET shows of what is stored.
    show: Callable[[World, Json], Json] = lambda world, resource: resource
    pending: float = 0.0


class ResourceTypes:
    """The known types by name in any case."""

    def __init__(self) -> None:
        self._types: dict[str, ResourceType] = {}

    def add(self, kind: ResourceType) -> None:
        self._types[kind.name.lower()] = kind

    def __iter__(self) -> Iterator[ResourceType]:
        return iter(self._types.values())

    def find(self, name: str, version: str | None = None) -> ResourceType:
        """The type; Refused if it or the api-version is unknown."""
        found = self._types.get(name.lower())
        if found is None:
            raise Refused(
                400, "InvalidResourceType", f"The resource type '{name}' could not be found."
            )
        if version is not None and version not in found.versions:
            known = ",".join(found.versions)
            raise Refused(
                400,
                "NoRegisteredProviderFound",
                f"No registered resource provider found for API version '{version}' for type "
                f"'{name}'. The supported api-versions are '{known}'.",
            )
        return found


def find(world: World, resource_id: str) -> Json:
    """A resource as it is stored; Refused (404) as ARM does."""
    resource = world.resources.get(resource_id.lower())
    if resource is None:
        parts = ResourceId.parse(resource_id)
        raise Refused(
            404,
            "ResourceNotFound",
            f"The Resource '{parts.type}/{'/'.join(parts.names)}' under resource group "
            f"'{parts.group}' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
        )
    return resource


def of_type(world: World, kind: str, under: str = "") -> list[Json]:
    """The resources of a type whose id begins with `under`, in order of their ids."""
    return [
        resource
        for key, resource in sorted(world.resources.items())
        if str(resource.get("type", "")).lower() == kind.lower() and key.startswith(under.lower())
    ]


def put(world: World, types: ResourceTypes, resource_id: str, body: Mapping[str, Any]) -> Json:
    """Make or change a resource after its type's checks; returns it as stored."""
    parts = ResourceId.parse(resource_id)
    kind = types.find(parts.type)
    before = world.resources.get(parts.key)
    asked = copy.deepcopy(dict(body))
    kind.check(world, parts, asked)
    made = kind.put(world, parts, asked, copy.deepcopy(before))
    properties = made.setdefault("properties", {})
    if isinstance(properties, dict):
        properties.setdefault("provisioningState", "Succeeded")
    made = {"id": parts.text, "name": parts.name, "type": kind.name, **made}
    world.resources[parts.key] = made
    return made


def delete(world: World, types: ResourceTypes, resource_id: str) -> bool:
    """Remove a resource and what is below it; whether it was there."""
    parts = ResourceId.parse(resource_id)
    below = [k for k in world.resources if k == parts.key or k.startswith(parts.key + "/")]
    for key in sorted(below, key=len, reverse=True):
        resource = world.resources.get(key)
        if resource is not None:
            types.find(str(resource["type"])).delete(world, ResourceId.parse(key), resource)
            world.resources.pop(key, None)
    return bool(below)
