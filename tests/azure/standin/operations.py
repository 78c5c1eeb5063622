"""Asynchronous operations of ARM: begun by a call, asked about until they are done.

Source: https://github.com/Azure/azure-resource-manager-rpc/blob/master/v1.0/async-api-reference.md
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.routes import ARM
from tests.azure.standin.world import SUBSCRIPTION, Operation, World, new_id

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

SOURCE = "Azure/azure-resource-manager-rpc async-api-reference.md"


def begin(world: World, seconds: float, finish: Callable[[], Json]) -> Operation:
    """An operation that is done after `seconds`; `finish` gives its result or raises Refused."""
    made = Operation(new_id(), time.monotonic() + seconds, finish)
    world.operations[made.id] = made
    # It ends whether somebody asks or not.
    timer = threading.Timer(seconds, _end, (world, made))
    timer.daemon = True
    timer.start()
    world.closing.append(timer.cancel)
    return made


def begin_open(world: World) -> Operation:
    """An operation without a term: it is at work until `settle` ends it."""
    made = Operation(new_id(), float("inf"), dict)
    world.operations[made.id] = made
    return made


def settle(operation: Operation, failed: Refused | None) -> None:
    """End an operation that has no term of its own, well or with what is refused."""

    def finish() -> Json:
        if failed is not None:
            raise failed
        return {}

    operation.finish = finish
    operation.ready = 0.0


def _end(world: World, operation: Operation) -> None:
    with world.lock:
        outcome(operation)


def status_headers(operation: Operation, version: str, seconds: str = "1") -> Mapping[str, str]:
    """`Azure-AsyncOperation`: the address answers 200 and a status until it is done."""
    return {
        "Azure-AsyncOperation": f"https://{ARM}/subscriptions/{SUBSCRIPTION}/providers/"
        f"Microsoft.Resources/locations/global/operationStatuses/{operation.id}?api-version={version}",
        "Retry-After": seconds,
    }


def location_headers(operation: Operation, version: str, seconds: str = "1") -> Mapping[str, str]:
    """`Location`: the address answers 202 until it is done, then the result."""
    return {
        "Location": f"https://{ARM}/subscriptions/{SUBSCRIPTION}/operationresults/{operation.id}"
        f"?api-version={version}",
        "Retry-After": seconds,
    }


def _find(world: World, name: str) -> Operation:
    found = world.operations.get(name)
    if found is None:
        raise Refused(404, "OperationNotFound", f"The operation '{name}' could not be found.")
    return found


def outcome(operation: Operation) -> Json | Refused | None:
    """The result, what it was refused with, or None while it is at work."""
    if operation.result is None:
        if time.monotonic() < operation.ready:
            return None
        try:
            operation.result = operation.finish()
        except Refused as failed:
            operation.finish, operation.failed = dict, failed
            operation.result = {}
    return operation.failed or operation.result


def add(parts: Parts) -> None:
    """The addresses that operations are asked at."""
    routes = parts.routes

    @routes.add(
        ARM,
        "GET",
        "/subscriptions/{s}/providers/{namespace}/locations/{region}/operationStatuses/{name}",
        source=SOURCE,
    )
    def status(
        world: World, request: Request, s: str, namespace: str, region: str, name: str
    ) -> Answer:
        operation = _find(world, name)
        result = outcome(operation)
        given: Json = {"id": request.path, "name": name, "status": "Succeeded"}
        if result is None:
            given["status"] = "InProgress"
        elif isinstance(result, Refused):
            given |= {"status": "Failed", **result.answer().body}
        elif result:
            given["properties"] = result
        # Without it clients wait half a minute.
        return Answer(200, given, {"Retry-After": "1"} if result is None else {})

    @routes.add(ARM, "GET", "/subscriptions/{s}/operationresults/{name}", source=SOURCE)
    def result(world: World, request: Request, s: str, name: str) -> Answer:
        operation = _find(world, name)
        found = outcome(operation)
        if found is None:
            return Answer(202, None, location_headers(operation, request.api_version))
        if isinstance(found, Refused):
            return found.answer()
        return Answer(200, found or None)
