"""Data sets: names whose versions say where files lie, as a data flow that the SDK's engine reads.

What is saved has an id made from its content, so the same files at the same place are one saved data
set; registering it a second time gives the version there is.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from tests.azure.standin.messages import Answer, Json, Request
from tests.azure.standin.ml.workspace import Plane, Workspace, new_id, page, stamp, user_error

SOURCE = "azureml-core _restclient/operations/dataset_operations.py"
YAML_SOURCE = "azureml-core data/_dataset_rest_helper.py"
SERVICE = "dataset/v1.0"
ACTIVE = {"state": "active", "deprecatedBy": None, "etag": None}
UNREGISTERED = "unregistered-"


def _kept(workspace: Workspace) -> dict[str, Json]:
    """Data sets by name; `_versions` are their definitions, the oldest first."""
    kept: dict[str, Json] = workspace.rooms.setdefault("datasets", {})
    return kept


def _saved(workspace: Workspace) -> dict[str, Json]:
    kept: dict[str, Json] = workspace.rooms.setdefault("saved datasets", {})
    return kept


def _save(workspace: Workspace, kind: Any, dataflow: Any, properties: Any) -> str:
    """The id of a saved data set with this content; Refused (400) if it is no data flow of today."""
    try:
        text = json.loads(dataflow)["meta"]["RsDataflow"]
    except (TypeError, ValueError, KeyError):
        raise user_error(400, "The data flow is not valid.") from None
    if kind not in ("file", "tabular"):
        raise user_error(400, f"The data set type {kind} is not known.")
    key = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{workspace.workspace_id} {kind} {text}"))
    _saved(workspace).setdefault(
        key,
        {
            "id": key,
            "datasetType": kind,
            "properties": properties or {},
            "dataflowJson": dataflow,
            "dataChanged": None,
            "dataPath": None,
        },
    )
    return key


def _shown(dataset: Json, version: str | None = None) -> Json:
    """A data set with one of its versions as the latest; Refused (404) if there is no such version."""
    versions = dataset["_versions"]
    found = [v for v in versions if version is None or v["versionId"] == version]
    if not found:
        raise user_error(
            404, f"Dataset {dataset['name']} has no version {version}.", "DatasetNotFound"
        )
    latest = found[-1]
    shown = {name: value for name, value in dataset.items() if not name.startswith("_")}
    tags = latest["_tags"]
    return {
        **shown,
        "tags": tags,
        "description": latest["_description"],
        "latest": {name: value for name, value in latest.items() if not name.startswith("_")},
    }


def _find(workspace: Workspace, key: str) -> Json:
    for name, dataset in _kept(workspace).items():
        if key in (name, dataset["datasetId"]):
            return dataset
    raise user_error(404, f"No dataset with name or id {key} was found.", "DatasetNotFound")


def _register(workspace: Workspace, request: Request) -> Json:
    body = request.mapping()
    name, asked = str(body.get("name") or ""), body.get("latest") or {}
    new_version = request.query.get("updateDefinitionIfExists", "").lower() == "true"
    if not name or len(name) > 255 or "/" in name:
        raise user_error(400, f"The dataset name '{name}' is not valid.")
    saved = _save(
        workspace, body.get("datasetType"), asked.get("dataflow"), asked.get("properties")
    )
    known = _kept(workspace).get(name)
    if known is not None and not new_version:
        raise user_error(409, f"A dataset named {name} already exists.", "Conflict")
    if known is not None and known["_versions"][-1]["savedDatasetId"] == saved:
        return _shown(known)
    # One data set for a datastore and path, whatever its name and what is there by now: Microsoft in
    # Azure/MachineLearningNotebooks issue 885.
    for other, dataset in _kept(workspace).items():
        for version in dataset["_versions"]:
            if version["savedDatasetId"] == saved:
                raise user_error(
                    400,
                    f"The dataset {saved} has been registered as {other}:{version['versionId']} "
                    "(name:version).",
                )
    made = stamp()
    if known is None:
        known = _kept(workspace)[name] = {
            "datasetId": new_id(),
            "datasetState": ACTIVE,
            "createdTime": made,
            "etag": None,
            "name": name,
            "isVisible": body.get("isVisible", True),
            "defaultCompute": None,
            "datasetType": body["datasetType"],
            "_versions": [],
        }
    known["modifiedTime"] = made
    known["_versions"].append(
        {
            "datasetId": known["datasetId"],
            "versionId": str(len(known["_versions"]) + 1),
            "datasetDefinitionState": ACTIVE,
            "dataflow": asked["dataflow"],
            "dataPath": None,
            "createdTime": made,
            "modifiedTime": made,
            "properties": asked.get("properties") or {},
            "savedDatasetId": saved,
            "_tags": body.get("tags") or {},
            "_description": body.get("description"),
        }
    )
    return _shown(known)


def _update(dataset: Json, body: Json) -> Json:
    """Change the description and the tags of the version that the body names."""
    wanted = str((body.get("latest") or {}).get("versionId"))
    version = next((v for v in dataset["_versions"] if v["versionId"] == wanted), None)
    if version is None:
        raise user_error(404, f"The dataset has no version {wanted}.", "DatasetNotFound")
    version["_tags"] = body.get("tags") or {}
    version["_description"] = body.get("description")
    version["modifiedTime"] = stamp()
    return _shown(dataset, wanted)


def add(plane: Plane) -> None:
    @plane.add(SERVICE, "POST", "/datasets", source=SOURCE)
    def register(workspace: Workspace, request: Request) -> Json:
        return _register(workspace, request)

    @plane.add(SERVICE, "GET", "/datasets", source=SOURCE)
    def listed(workspace: Workspace, request: Request) -> Json:
        found = [_shown(dataset) for _, dataset in sorted(_kept(workspace).items())]
        return page(request, found, int(request.query.get("pageSize") or 100))

    @plane.add(SERVICE, "GET", "/datasets/query/name={name}", source=SOURCE)
    def by_name(workspace: Workspace, request: Request, name: str) -> Json:
        if name not in _kept(workspace):
            raise user_error(404, f"No dataset named {name} was found.", "DatasetNotFound")
        return _shown(_kept(workspace)[name], request.query.get("versionId"))

    @plane.add(SERVICE, "GET", "/datasets/query/savedDatasetId={key}", source=SOURCE)
    def by_saved_id(workspace: Workspace, request: Request, key: str) -> Json:
        found = [
            _shown(dataset, version["versionId"])
            for dataset in _kept(workspace).values()
            for version in dataset["_versions"]
            if version["savedDatasetId"] == key
        ]
        return {"value": found}

    @plane.add(SERVICE, "GET PUT DELETE", "/datasets/{key}", source=SOURCE)
    def one(workspace: Workspace, request: Request, key: str) -> Answer | Json:
        dataset = _find(workspace, key)
        if request.method == "DELETE":
            del _kept(workspace)[dataset["name"]]
            return Answer(200)
        if request.method == "PUT":
            return _update(dataset, request.mapping())
        return _shown(dataset)

    @plane.add(SERVICE, "POST", "/saveddatasets", source=SOURCE)
    def save(workspace: Workspace, request: Request) -> Json:
        body = request.mapping()
        key = _save(
            workspace, body.get("datasetType"), body.get("dataflowJson"), body.get("properties")
        )
        return _saved(workspace)[key]

    @plane.add(SERVICE, "GET", "/saveddatasets/{key}", source=SOURCE)
    def saved(workspace: Workspace, request: Request, key: str) -> Json:
        if key not in _saved(workspace):
            raise user_error(404, f"No saved dataset with id {key} was found.", "DatasetNotFound")
        return _saved(workspace)[key]

    @plane.add("data/v1.0", "GET", "/dataversion/{key}/versions/{version}", source=YAML_SOURCE)
    def dataflow(workspace: Workspace, request: Request, key: str, version: str) -> Json:
        found = _saved(workspace).get(key.removeprefix(UNREGISTERED))
        if not key.startswith(UNREGISTERED) or found is None:
            raise user_error(404, f"No data version {key}:{version} was found.", "NotFound")
        text = json.loads(found["dataflowJson"])["meta"]["RsDataflow"]
        return {"legacyDataflow": text, "dataVersion": None}
