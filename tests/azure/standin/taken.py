"""Names that are unique in all of Azure, and that somebody else already has."""

from __future__ import annotations

from tests.azure.standin.world import World


def _names(world: World) -> set[tuple[str, str]]:
    found = world.rooms.setdefault("taken", set())
    assert isinstance(found, set)
    return found


def take(world: World, kind: str, name: str) -> None:
    """Let the name of a type (Microsoft.Storage/storageAccounts) be another customer's."""
    _names(world).add((kind.lower(), name.lower()))


def release(world: World, kind: str, name: str) -> None:
    """Let the name be free again."""
    _names(world).discard((kind.lower(), name.lower()))


def taken(world: World, kind: str, name: str) -> bool:
    """Whether another customer has it."""
    return (kind.lower(), name.lower()) in _names(world)
