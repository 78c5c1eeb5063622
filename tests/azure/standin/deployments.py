"""Deployments of templates into a group: validate, what-if, create, show, operations, cancel.

Source: azure-cli resource/tests/latest/recordings/test_group_deployment.yaml and
test_resource_group_level_what_if.yaml; REST spec Microsoft.Resources deployments.json
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.azure.standin import generic, jsonc, operations, policy
from tests.azure.standin.access import allowed, caller
from tests.azure.standin.arm import GROUPS, deprovisioning, find_group, subscription
from tests.azure.standin.directory import Principal
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.resources import ResourceId, ResourceType, ResourceTypes
from tests.azure.standin.routes import ARM
from tests.azure.standin.shapes import SERVER, Optional, check_shape
from tests.azure.standin.templates import Plan, Planned, make_outputs, make_plan
from tests.azure.standin.whatif import changes
from tests.azure.standin.world import World, new_id, now

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

DEPLOYMENT = "Microsoft.Resources/deployments"
RECORDED = "azure-cli resource/tests/latest/recordings/test_group_deployment.yaml"
WHAT_IF = "azure-cli resource/tests/latest/recordings/test_resource_group_level_what_if.yaml"
HALF = "deployment fails half-way"


@dataclass
class Run:
    """A deployment at work or done."""

    plan: Plan
    shown: Json
    began: float
    status: str = "Accepted"
    error: Json | None = None
    steps: list[Json] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def active(self) -> bool:
        return self.status in ("Accepted", "Running")


def _runs(world: World) -> dict[str, Run]:
    found = world.rooms.setdefault("deployments", {})
    assert isinstance(found, dict)
    return found


def _read(world: World, request: Request, group: str) -> tuple[Json, Plan]:
    """The request's properties and what its template comes to."""
    found = find_group(world, group)
    if found["properties"]["provisioningState"] == "Deleting":
        raise deprovisioning(group)
    body = jsonc.load(request.body)
    check_shape(
        body,
        {
            "properties": {
                "template": SERVER,
                "parameters": SERVER,
                "mode": {"Incremental"},
                "whatIfSettings": Optional(
                    {"resultFormat": Optional({"FullResourcePayloads", "ResourceIdOnly"})}
                ),
                "debugSetting": SERVER,
                "expressionEvaluationOptions": SERVER,
                "validationLevel": Optional({"Provider", "ProviderNoRbac", "Template"}),
            },
            "location": SERVER,
            "tags": SERVER,
        },
        "Deployment",
    )
    properties = body["properties"]
    return properties, make_plan(properties, found, subscription())


def _authorization(world: World, who: Principal, planned: Planned) -> None:
    target = ResourceId.parse(planned.id)
    action = f"{target.type}/write"
    if not allowed(world, who.object_id, action, planned.id):
        shown = who.name if who.kind == "User" else who.app_id
        raise Refused(
            403,
            "InvalidTemplateDeployment",
            f"Authorization failed for template resource '{target.name}' of type '{target.type}'. The "
            f"client '{shown}' with object id '{who.object_id}' does not have permission to perform "
            f"action '{action}' at scope '{planned.id}'.",
        )


def preflight(world: World, types: ResourceTypes, who: Principal, name: str, plan: Plan) -> None:
    """Refused with all that roles and types object to before anything is made."""
    made = {planned.id.lower() for planned in plan.resources}
    errors: list[Refused] = []
    for planned in plan.resources:
        try:
            _authorization(world, who, planned)
            target = ResourceId.parse(planned.id)
            nested = target.parent is not None and target.parent.lower() in made
            if planned.known and not nested:
                generic.check(world, types, planned.id, planned.body, planned.version)
            else:
                types.find(target.type, planned.version)
        except Refused as refused:
            errors.append(refused)
    denied = [each for each in errors if each.code == "InvalidTemplateDeployment"]
    if denied:
        shown = "' and '".join(each.message for each in denied)
        count = (
            f"Deployment failed with multiple errors: '{shown}'"
            if denied[1:]
            else denied[0].message
        )
        raise Refused(403, "InvalidTemplateDeployment", count)
    unknown = [each for each in errors if each.code.startswith(("InvalidTemplate", "NoRegistered"))]
    if unknown:
        raise unknown[0]
    inner = [_inner(each) for each in errors]
    if any(each.code == policy.CODE for each in errors):
        only = all(each.code == policy.CODE for each in errors)
        raise Refused(
            400,
            "InvalidTemplateDeployment",
            f"The template deployment failed {'because of policy violation' if only else 'with multiple errors'}"
            ". Please see details for more information.",
            details=inner,
        )
    if errors:
        raise Refused(
            400,
            "InvalidTemplateDeployment",
            f"The template deployment '{name}' is not valid according to the validation procedure. The "
            f"tracking id is '{new_id()}'. See inner errors for details.",
            details=inner,
        )


def _inner(refused: Refused) -> Json:
    """A refusal as a detail of another."""
    given: Json = {"code": refused.code, "message": refused.message, **refused.more}
    return given | {"details": refused.details} if refused.details else given


def _shown(group: str, name: str, properties: Json, plan: Plan) -> Json:
    namespaces: dict[str, set[str]] = {}
    for planned in plan.resources:
        namespace, _, kind = planned.type.partition("/")
        namespaces.setdefault(namespace, set()).add(kind)
    text = json.dumps(properties["template"], sort_keys=True)
    return {
        "id": f"{plan.scope.group['id']}/providers/{DEPLOYMENT}/{name}",
        "name": name,
        "type": DEPLOYMENT,
        "properties": {
            "templateHash": str(uuid.uuid5(uuid.NAMESPACE_OID, text).int % 10**20),
            "parameters": plan.parameters,
            "mode": "Incremental",
            "provisioningState": "Accepted",
            "timestamp": now(),
            "duration": "PT0S",
            "correlationId": new_id(),
            "providers": [
                {
                    "namespace": namespace,
                    "resourceTypes": [{"resourceType": kind} for kind in sorted(kinds)],
                }
                for namespace, kinds in namespaces.items()
            ],
            "dependencies": [],
        },
    }


def _reference(
    world: World, types: ResourceTypes, plan: Plan, given: str, version: str | None, full: bool
) -> Any:
    found = world.resources.get(given.lower())
    if found is None:
        target = ResourceId.parse(given)
        raise Refused(
            404,
            "ResourceNotFound",
            f"The Resource '{target.type}/{'/'.join(target.names)}' under resource group "
            f"'{target.group}' was not found. For more details please go to "
            "https://aka.ms/ARMResourceNotFoundFix",
        )
    if version is not None:
        types.find(str(found["type"]), version)
    shown = generic.shown(world, types, found)
    return shown if full else shown["properties"]


def _make(world: World, types: ResourceTypes, run: Run) -> None:
    """Make the resources one after the other; what depends on a failure is left out."""
    plan = run.plan

    def reference(given: str, version: str | None, full: bool) -> Any:
        return _reference(world, types, plan, given, version, full)

    scope = plan.scope.at_run(reference)
    with world.lock:
        run.status = "Running"
        stop = len(plan.resources) // 2 if world.faults.has(HALF) else None
    failed: dict[str, Refused] = {}
    for at, planned in enumerate(plan.resources):
        if run.cancelled.is_set():
            break
        key = planned.id.lower()
        if plan.needs[key] & failed.keys():
            # Not made, and no failure of its own.
            failed[key] = failed[next(iter(plan.needs[key] & failed.keys()))]
            continue
        target = ResourceId.parse(planned.id)
        step: Json = {
            "id": f"{run.shown['id']}/operations/{new_id()}",
            "operationId": new_id(),
            "properties": {
                "provisioningOperation": "Create",
                "provisioningState": "Running",
                "timestamp": now(),
                "targetResource": {
                    "id": planned.id,
                    "resourceType": target.type,
                    "resourceName": "/".join(target.names),
                },
            },
        }
        with world.lock:
            run.steps.append(step)
            try:
                if at == stop:
                    raise Refused(
                        500, "InternalServerError", "Encountered internal server error. (stand-in)"
                    )
                body = plan.full_body(planned, scope)
                generic.put(world, types, planned.id, body, planned.version)
            except Refused as refused:
                failed[key] = refused
                step["properties"] |= {
                    "provisioningState": "Failed",
                    "statusCode": str(refused.status),
                    "statusMessage": refused.answer().body,
                }
                continue
        while not run.cancelled.is_set() and (left := generic.busy(world, planned.id)):
            time.sleep(min(left, 0.1))
        refusal = _awaited(world, run, planned.id)
        if refusal is not None:
            failed[key] = refusal
            step["properties"] |= {
                "provisioningState": "Failed",
                "statusCode": str(refusal.status),
                "statusMessage": refusal.answer().body,
            }
            continue
        step["properties"] |= {"provisioningState": "Succeeded", "statusCode": "OK"}
    with world.lock:
        _finish(run, scope, list(dict.fromkeys(failed.values())))


def _awaited(world: World, run: Run, resource_id: str) -> Refused | None:
    """Wait for what a resource goes on with after its PUT; how that failed."""
    operation = generic.followed(world, resource_id)
    while operation is not None and not run.cancelled.is_set():
        with world.lock:
            found = operations.outcome(operation)
        if found is not None:
            return found if isinstance(found, Refused) else None
        time.sleep(0.1)
    return None


def _finish(run: Run, scope: Any, failures: list[Refused]) -> None:
    properties = run.shown["properties"]
    properties["duration"] = f"PT{time.monotonic() - run.began:.3f}S"
    properties["timestamp"] = now()
    if run.cancelled.is_set():
        run.status = "Canceled"
    elif failures:
        run.status = "Failed"
        targets = {
            json.dumps(step["properties"].get("statusMessage")): step["properties"][
                "targetResource"
            ]["id"]
            for step in run.steps
        }
        run.error = {
            "code": "DeploymentFailed",
            "target": run.shown["id"],
            "message": "At least one resource deployment operation failed. Please list deployment "
            "operations for details. Please see https://aka.ms/arm-deployment-operations for usage "
            "details.",
            "details": [
                {
                    "code": each.code,
                    "target": targets.get(json.dumps(each.answer().body)),
                    "message": each.message,
                }
                for each in failures
            ],
        }
        properties["error"] = run.error
    else:
        try:
            properties["outputs"] = make_outputs(run.plan, scope)
            run.status = "Succeeded"
        except Refused as refused:
            run.status, run.error = "Failed", refused.answer().body["error"]
            properties["error"] = run.error
        properties["outputResources"] = [{"id": planned.id} for planned in run.plan.resources]
    properties["provisioningState"] = run.status


def _refuse_put(world: World, target: ResourceId, body: Json) -> None:
    raise Refused(400, "InvalidTemplate", "The stand-in has no nested deployments.")


def add(parts: Parts) -> None:
    """Routes of Microsoft.Resources/deployments in a group."""
    world, routes, types = parts.world, parts.routes, parts.types
    world.faults.declare(HALF, "the second half of a template's resources is not made")
    types.add(ResourceType(DEPLOYMENT, GROUPS, RECORDED, check=_refuse_put))
    folder = f"/subscriptions/{{s}}/resourcegroups/{{g}}/providers/{DEPLOYMENT}"
    path = f"{folder}/{{name}}"

    def find(world: World, g: str, name: str) -> Run:
        group = find_group(world, g)
        run = _runs(world).get(f"{group['id']}/{name}".lower())
        if run is None or run.shown["id"].lower() not in world.resources:
            raise Refused(404, "DeploymentNotFound", f"Deployment '{name}' could not be found.")
        return run

    @routes.add(ARM, "POST", f"{path}/validate", source=RECORDED, versions=GROUPS)
    def validate(world: World, request: Request, s: str, g: str, name: str) -> Answer:
        properties, plan = _read(world, request, g)
        preflight(world, types, caller(world, request), name, plan)
        given = _shown(g, name, properties, plan)
        given["properties"] |= {
            "provisioningState": "Succeeded",
            "validatedResources": [{"id": planned.id} for planned in plan.resources],
        }
        return Answer(200, given)

    @routes.add(ARM, "POST", f"{path}/whatIf", source=WHAT_IF, versions=GROUPS)
    def what_if(world: World, request: Request, s: str, g: str, name: str) -> Answer:
        who = caller(world, request)
        group = find_group(world, g)
        result: Json
        try:
            properties, plan = _read(world, request, g)
            preflight(world, types, who, name, plan)
            short = (properties.get("whatIfSettings") or {}).get("resultFormat") == "ResourceIdOnly"
            found = changes(world, types, plan, str(group["id"]), short=short)
            result = {
                "status": "Succeeded",
                "properties": {"correlationId": new_id(), "changes": found},
            }
        except Refused as refused:
            result = {"status": "Failed", "error": refused.answer().body["error"]}
        operation = operations.begin(world, 0.3, lambda: result)
        return Answer(202, None, operations.location_headers(operation, request.api_version, "0"))

    @routes.add(ARM, "PUT", path, source=RECORDED, versions=GROUPS)
    def create(world: World, request: Request, s: str, g: str, name: str) -> Answer:
        if not re.fullmatch(r"[-\w.()]{1,64}", name):
            raise Refused(
                400,
                "InvalidDeploymentName",
                f"The deployment name '{name}' is not valid: up to 64 letters, digits, '-', '_', '.', "
                "'(' and ')'.",
            )
        properties, plan = _read(world, request, g)
        preflight(world, types, caller(world, request), name, plan)
        key = f"{plan.scope.group['id']}/{name}".lower()
        before = _runs(world).get(key)
        if before is not None and before.active:
            raise Refused(
                409,
                "DeploymentActive",
                f"Unable to edit or replace deployment '{name}': previous deployment from "
                f"'{before.shown['properties']['timestamp']}' is still active. Please see "
                "https://aka.ms/arm-deploy for usage details.",
            )
        run = Run(plan, _shown(g, name, properties, plan), time.monotonic())
        _runs(world)[key] = run
        world.resources[run.shown["id"].lower()] = run.shown
        worker = threading.Thread(target=_make, args=(world, types, run), daemon=True)
        answer = json.loads(json.dumps(run.shown))
        worker.start()
        world.closing.append(run.cancelled.set)
        headers = {
            "Azure-AsyncOperation": f"https://{ARM}{run.shown['id']}/operationStatuses/{new_id()}"
            f"?api-version={request.api_version}",
            "Retry-After": "1",
        }
        return Answer(201 if before is None else 200, answer, headers)

    @routes.add(ARM, "GET HEAD", path, source=RECORDED, versions=GROUPS)
    def show(world: World, request: Request, s: str, g: str, name: str) -> Answer:
        if request.method == "HEAD":
            try:
                find(world, g, name)
            except Refused as refused:
                return Answer(refused.status)
            return Answer(204)
        return Answer(200, find(world, g, name).shown)

    @routes.add(ARM, "DELETE", path, source=RECORDED, versions=GROUPS)
    def remove(world: World, request: Request, s: str, g: str, name: str) -> Answer:
        run = find(world, g, name)
        world.resources.pop(run.shown["id"].lower(), None)
        operation = operations.begin(world, 0, dict)
        return Answer(202, None, operations.location_headers(operation, request.api_version, "0"))

    @routes.add(ARM, "GET", folder, source=RECORDED, versions=GROUPS)
    def everything(world: World, request: Request, s: str, g: str) -> Json:
        prefix = f"{find_group(world, g)['id']}/providers/{DEPLOYMENT}/".lower()
        return {"value": [each for key, each in world.resources.items() if key.startswith(prefix)]}

    @routes.add(ARM, "GET", f"{path}/operationStatuses/{{o}}", source=RECORDED, versions=GROUPS)
    def status(world: World, request: Request, s: str, g: str, name: str, o: str) -> Answer:
        run = find(world, g, name)
        given: Json = {"status": run.status}
        if run.error is not None:
            given["error"] = run.error
        return Answer(200, given, {"Retry-After": "1"} if run.active else {})

    short = "/subscriptions/{s}/resourcegroups/{g}/deployments/{name}/operations"

    @routes.add(ARM, "GET", short, source=RECORDED, versions=GROUPS)
    @routes.add(ARM, "GET", f"{path}/operations", source=RECORDED, versions=GROUPS)
    def steps(world: World, request: Request, s: str, g: str, name: str) -> Json:
        return {"value": find(world, g, name).steps}

    @routes.add(
        ARM, "POST", f"{path}/cancel", source="REST spec: deployments.json", versions=GROUPS
    )
    def cancel(world: World, request: Request, s: str, g: str, name: str) -> Answer:
        run = find(world, g, name)
        if not run.active:
            raise Refused(
                409,
                "DeploymentCannotBeCancelled",
                f"The deployment '{name}' cannot be cancelled because it is not active.",
            )
        run.cancelled.set()
        return Answer(204)
