"""Resource providers of the subscription: registered or not.

Source: azure-cli resource/tests/latest/recordings/test_provider_registration.yaml
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.resources import ResourceTypes
from tests.azure.standin.routes import ARM
from tests.azure.standin.world import REGIONS, SUBSCRIPTION, World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

RECORDED = "azure-cli resource/tests/latest/recordings/test_provider_registration.yaml"
#: Registered in every subscription from the start.
ALWAYS = {"microsoft.authorization", "microsoft.resources"}
#: Azure has some namespaces in lower case, however their types are written.
#: Source: MicrosoftDocs/azure-docs issue 85190; hashicorp/terraform-provider-azurerm pull request 282.
LOWER = {"Microsoft.Insights"}


def unregistered(world: World) -> set[str]:
    """Namespaces, in lower case, that are not registered; a test adds to them."""
    found = world.rooms.setdefault("unregistered", set())
    assert isinstance(found, set)
    return found


def check_registered(world: World, namespace: str) -> None:
    """Refused (409) if the subscription is not registered for it."""
    if namespace.lower() in unregistered(world):
        raise Refused(
            409,
            "MissingSubscriptionRegistration",
            f"The subscription is not registered to use namespace '{namespace}'. See "
            "https://aka.ms/rps-not-found for how to register subscriptions.",
            details=[
                {
                    "code": "MissingSubscriptionRegistration",
                    "target": namespace,
                    "message": f"The subscription is not registered to use namespace '{namespace}'. See "
                    "https://aka.ms/rps-not-found for how to register subscriptions.",
                }
            ],
        )


def _namespaces(types: ResourceTypes) -> dict[str, str]:
    found = {kind.name.partition("/")[0] for kind in types} | {"Microsoft.Resources"}
    return {name.lower(): name.lower() if name in LOWER else name for name in sorted(found)}


def _provider(world: World, types: ResourceTypes, namespace: str) -> Json:
    name = _namespaces(types).get(namespace.lower())
    if name is None:
        raise Refused(
            404,
            "InvalidResourceNamespace",
            f"The resource namespace '{namespace}' is invalid.",
        )
    missing = name.lower() in unregistered(world)
    return {
        "id": f"/subscriptions/{SUBSCRIPTION}/providers/{name}",
        "namespace": name,
        "resourceTypes": [
            {
                "resourceType": kind.name.partition("/")[2],
                "locations": list(REGIONS.values()),
                "apiVersions": sorted(kind.versions, reverse=True),
                "capabilities": "None",
            }
            for kind in types
            if kind.name.partition("/")[0].lower() == name.lower()
        ],
        "registrationState": "NotRegistered" if missing else "Registered",
        "registrationPolicy": "RegistrationRequired",
    }


def add(parts: Parts) -> None:
    """Routes of /providers."""
    routes, types = parts.routes, parts.types
    versions = (
        "2019-07-01",
        "2020-06-01",
        "2020-10-01",
        "2021-04-01",
        "2022-09-01",
        "2024-11-01",
        "2025-04-01",
    )

    @routes.add(ARM, "GET", "/subscriptions/{s}/providers", source=RECORDED, versions=versions)
    def providers(world: World, request: Request, s: str) -> Json:
        return {"value": [_provider(world, types, name) for name in _namespaces(types)]}

    @routes.add(
        ARM, "GET", "/subscriptions/{s}/providers/{namespace}", source=RECORDED, versions=versions
    )
    def provider(world: World, request: Request, s: str, namespace: str) -> Json:
        return _provider(world, types, namespace)

    @routes.add(
        ARM,
        "POST",
        "/subscriptions/{s}/providers/{namespace}/register",
        source=RECORDED,
        versions=versions,
    )
    def register(world: World, request: Request, s: str, namespace: str) -> Answer:
        unregistered(world).discard(namespace.lower())
        return Answer(200, _provider(world, types, namespace))
