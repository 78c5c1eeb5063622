"""Tags of a resource or a group by themselves, as `az tag` reads and changes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.azure.standin.arm import find_group
from tests.azure.standin.messages import Json, Refused, Request
from tests.azure.standin.resources import find
from tests.azure.standin.routes import ARM
from tests.azure.standin.shapes import TEXT, Map, check_shape
from tests.azure.standin.world import World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

VERSIONS = (
    "2019-10-01",
    "2021-04-01",
    "2022-09-01",
    "2023-07-01",
    "2024-03-01",
    "2024-11-01",
    "2025-04-01",
)
SOURCE = (
    "azure-cli recording resource/test_tag_update_patch; limits: learn.microsoft.com, tag-resources"
)
PATH = "/{scope...}/providers/Microsoft.Resources/tags/default"
MOST, LONGEST_NAME, LONGEST_VALUE = 50, 512, 256


def check_tags(tags: dict[str, str]) -> None:
    """Refused where Azure would refuse such tags."""
    if len(tags) > MOST:
        raise Refused(
            400,
            "InvalidNumberOfTags",
            f"The number of tags specified on the resource exceeds the maximum limit of {MOST}.",
        )
    for name, value in tags.items():
        if len(value) > LONGEST_VALUE:
            raise Refused(
                400,
                "InvalidTagValueLength",
                f"Tag value too large. Following tag value '{value}' exceeded the maximum length. Maximum "
                f"allowed length for tag value - '{LONGEST_VALUE}' characters.",
            )
        if len(name) > LONGEST_NAME or set(name) & set("<>%&\\?/"):
            raise Refused(
                400,
                "InvalidTagNameCharacters",
                f"The tag names '{name}' have reserved characters '<,>,%,&,\\,?,/' or control characters.",
            )


def _holder(world: World, scope: str) -> Json:
    """What carries the tags: a resource, or a group."""
    parts = scope.strip("/").split("/")
    if len(parts) == 4 and parts[2].lower() == "resourcegroups":
        return find_group(world, parts[3])
    return find(world, f"/{scope.strip('/')}")


def _answer(scope: str, holder: Json) -> Json:
    return {
        "id": f"/{scope.strip('/')}/providers/Microsoft.Resources/tags/default",
        "name": "default",
        "type": "Microsoft.Resources/tags",
        "properties": {"tags": holder.get("tags") or {}},
    }


def add(parts: Parts) -> None:
    """The routes."""

    @parts.routes.add(ARM, "GET", PATH, source=SOURCE, versions=VERSIONS)
    def show(world: World, request: Request, scope: str) -> Json:
        return _answer(scope, _holder(world, scope))

    @parts.routes.add(ARM, "PATCH", PATH, source=SOURCE, versions=VERSIONS)
    def update(world: World, request: Request, scope: str) -> Json:
        body = request.mapping()
        operations = {"Merge", "Replace", "Delete"}
        check_shape(
            body,
            {"operation": operations, "properties": {"tags": Map(TEXT)}},
            "Microsoft.Resources/tags",
        )
        holder = _holder(world, scope)
        given, now = dict(body["properties"]["tags"]), dict(holder.get("tags") or {})
        if body["operation"] == "Merge":
            given = {**now, **given}
        elif body["operation"] == "Delete":
            given = {name: value for name, value in now.items() if name not in given}
        check_tags(given)
        holder["tags"] = given
        return _answer(scope, holder)
