"""The model registry: assets name the artifacts, models are versions that point to an asset."""

from __future__ import annotations

import uuid
from typing import Any

from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.ml.workspace import Plane, Workspace, page, stamp

SOURCE = "azureml-core _restclient/operations/ml_models_operations.py and assets_operations.py"
SERVICE = "modelmanagement/v1.0"
#: What a model may be patched by (azureml-core core/model.py).
PATCHABLE = {
    "kvTags",
    "description",
    "properties",
    "sampleInputData",
    "sampleOutputData",
    "resourceRequirements",
    "datasets",
}


class ModelRefused(Refused):
    """Model management's own error body.

    Source: azureml-core _restclient/models/model_error_response.py.
    """

    def answer(self) -> Answer:
        body = {"code": self.code, "statusCode": self.status, "message": self.message}
        details = self.details or [{"code": self.code, "message": self.message}]
        correlation = {"RequestId": str(uuid.uuid4())}
        return Answer(self.status, {**body, "details": details, "correlation": correlation})


def _missing(kind: str, name: str) -> Refused:
    details = [{"code": f"{kind}NotFound", "message": f"{kind} with id {name} was not found"}]
    return ModelRefused(404, "NotFound", f"{kind}NotFound", details=details)


def add(plane: Plane) -> None:
    @plane.add(SERVICE, "POST", "/assets", source=SOURCE)
    def make_asset(workspace: Workspace, request: Request) -> Json:
        asset = request.mapping()
        if not asset.get("name"):
            raise ModelRefused(400, "BadRequest", "The asset has no name.")
        asset = {**asset, "id": uuid.uuid4().hex, "createdTime": stamp()}
        workspace.assets[asset["id"]] = asset
        return asset

    @plane.add(SERVICE, "GET", "/assets", source=SOURCE)
    def list_assets(workspace: Workspace, request: Request) -> Json:
        query = request.query
        found = [
            asset
            for asset in workspace.assets.values()
            if query.get("runId") in (None, asset.get("runid"))
            and query.get("name") in (None, asset["name"])
        ]
        return page(request, found, int(query.get("count") or 255))

    @plane.add(SERVICE, "GET DELETE", "/assets/{key}", source=SOURCE)
    def one_asset(workspace: Workspace, request: Request, key: str) -> Answer | Json:
        if key not in workspace.assets:
            raise _missing("Asset", key)
        if request.method == "DELETE":
            del workspace.assets[key]
            return Answer(200)
        return workspace.assets[key]

    @plane.add(SERVICE, "POST", "/models", source=SOURCE)
    def register(workspace: Workspace, request: Request) -> Json:
        return _register(workspace, request.mapping())

    @plane.add(SERVICE, "GET", "/models", source=SOURCE)
    def list_models(workspace: Workspace, request: Request) -> Json:
        return page(
            request, _query(workspace, request.query), int(request.query.get("count") or 255)
        )

    @plane.add(SERVICE, "GET DELETE PATCH", "/models/{key}", source=SOURCE)
    def one_model(workspace: Workspace, request: Request, key: str) -> Answer | Json:
        model = workspace.models.get(key)
        if model is None:
            raise _missing("Model", key)
        if request.method == "DELETE":
            # The version's number is not given again.
            del workspace.models[key]
            return Answer(200)
        if request.method == "PATCH":
            _patch(model, request.json())
        return model


def _register(workspace: Workspace, body: Json) -> Json:
    name = body.get("name")
    for required in ("name", "url", "mimeType"):
        if not body.get(required):
            raise ModelRefused(400, "BadRequest", f"The property {required} is required.")
    asset = str(body["url"]).removeprefix("aml://asset/")
    if asset not in workspace.assets:
        raise _missing("Asset", asset)
    version = workspace.model_versions.get(str(name), 0) + 1
    workspace.model_versions[str(name)] = version
    made = stamp()
    empty = dict.fromkeys(
        [
            "description",
            "framework",
            "frameworkVersion",
            "runId",
            "experimentName",
            "parentModelId",
            "sampleInputData",
            "sampleOutputData",
            "resourceRequirements",
        ]
    )
    model = {
        **empty,
        "datasets": [],
        "derivedModelIds": [],
        "unpack": False,
        **{field: value for field, value in body.items() if value is not None},
        "kvTags": body.get("kvTags") or {},
        "properties": body.get("properties") or {},
        "id": f"{name}:{version}",
        "version": version,
        "createdTime": made,
        "modifiedTime": made,
        "createdBy": {"userName": "slipway", "userObjectId": None, "userTenantId": None},
    }
    workspace.models[model["id"]] = model
    return model


def _query(workspace: Workspace, query: dict[str, str]) -> list[Json]:
    """The models asked for, the newest first."""
    found = list(workspace.models.values())
    for asked, field in (("name", "name"), ("runId", "runId"), ("framework", "framework")):
        if query.get(asked):
            found = [model for model in found if model[field] == query[asked]]
    for asked, field in (("tags", "kvTags"), ("tag", "kvTags"), ("properties", "properties")):
        for part in filter(None, query.get(asked, "").split(",")):
            key, equals, value = part.partition("=")
            found = [
                model
                for model in found
                if key in model[field] and (not equals or model[field][key] == value)
            ]
    found.sort(key=lambda model: (model["createdTime"], model["version"]), reverse=True)
    if query.get("latestVersionOnly", "").lower() == "true":
        latest: dict[str, Json] = {}
        for model in sorted(found, key=lambda model: int(model["version"])):
            latest[model["name"]] = model
        found = [model for model in found if latest[model["name"]] is model]
    return found


def _patch(model: Json, operations: Any) -> None:
    if not isinstance(operations, list):
        raise ModelRefused(400, "BadRequest", "A JSON patch is a list.")
    for operation in operations:
        field = str(operation.get("path", "")).strip("/")
        if field not in PATCHABLE or operation.get("op") not in ("add", "replace"):
            raise ModelRefused(400, "BadRequest", f"A model cannot be patched by {operation}.")
        value = operation["value"]
        if field == "properties":
            # Properties can be added and never changed.
            changed = [k for k, v in value.items() if model["properties"].get(k, v) != v]
            if changed:
                raise ModelRefused(400, "BadRequest", f"Properties cannot be changed: {changed}")
            value = {**model["properties"], **value}
        model[field] = value
    model["modifiedTime"] = stamp()
