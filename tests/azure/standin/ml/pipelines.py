"""Pipelines: modules and graphs as the SDK builds them, published pipelines, and their runs.

The service (aeva) writes its members in PascalCase. A graph's nodes are modules with parameters; what
makes a run of them stands in graphs.py, what executes it in orchestration.py.
"""

from __future__ import annotations

from typing import Any

from tests.azure.standin.messages import Answer, Json, Request
from tests.azure.standin.ml import graphs, orchestration
from tests.azure.standin.ml.graphs import Kept, kept
from tests.azure.standin.ml.workspace import Plane, Workspace, new_id, stamp, user_error

SOURCE = "azureml-pipeline-core _restclients/aeva/aml_pipelines_api10.py"
SERVICE = "pipelines/v1.0"
#: What a published pipeline may be; the SDK sends the number.
STATUSES = {"0": "Active", "1": "Deprecated", "2": "Disabled"}
DATA_TYPES = (
    "AnyFile",
    "AnyDirectory",
    "AzureBlobReference",
    "AzureFilesReference",
    "AzureDataLakeReference",
    "AzureDataLakeGen2Reference",
    "AzureMySqlDatabaseReference",
    "AzurePostgresDatabaseReference",
    "AzureSqlDatabaseReference",
    "DBFSReference",
)


def entity(body: Json, **more: Any) -> Json:
    """A thing the service keeps: with an id and its dates."""
    made = stamp()
    dates = {"CreatedDate": made, "LastModifiedDate": made}
    return {"Id": new_id(), "Etag": new_id(), "EntityStatus": "Active", **dates, **body, **more}


def _find(where: dict[str, Json], kind: str, key: str) -> Json:
    if key not in where:
        raise user_error(404, f"{kind} {key} was not found.", "NotFound")
    return where[key]


def add(plane: Plane) -> None:
    _parts(plane)
    _published(plane)
    _runs(plane)


def _parts(plane: Plane) -> None:
    """What graphs are made of."""

    @plane.add(SERVICE, "GET", "/DataTypes", source=SOURCE)
    def data_types(workspace: Workspace, request: Request) -> list[Json]:
        types = kept(workspace).data_types
        for name in DATA_TYPES:
            known = {"Name": name, "Description": name, "IsDirectory": "Directory" in name}
            types.setdefault(name, entity({**known, "ParentDataTypeIds": []}, Id=name))
        return list(types.values())

    @plane.add(SERVICE, "POST", "/DataTypes", source=SOURCE)
    def make_data_type(workspace: Workspace, request: Request) -> Json:
        body = request.mapping()
        made = entity(body, Id=body["Name"])
        kept(workspace).data_types[made["Id"]] = made
        return made

    @plane.add(SERVICE, "POST", "/Modules", source=SOURCE)
    def make_module(workspace: Workspace, request: Request) -> Json:
        body = request.mapping()
        if not body.get("Name") or not isinstance(body.get("StructuredInterface"), dict):
            raise user_error(400, "A module needs Name and StructuredInterface.")
        made = entity(body, UploadState="Completed")
        kept(workspace).modules[made["Id"]] = made
        return made

    @plane.add(SERVICE, "GET", "/Modules/Hash/{value}", source=SOURCE)
    def module_by_hash(workspace: Workspace, request: Request, value: str) -> Answer | Json:
        for module in kept(workspace).modules.values():
            if module.get("IdentifierHash") == value and module.get("IsDeterministic"):
                return graphs.module_shown(module)
        return Answer(204)

    @plane.add(SERVICE, "GET PUT", "/Modules/{key}", source=SOURCE)
    def module(workspace: Workspace, request: Request, key: str) -> Json:
        found = _find(kept(workspace).modules, "Module", key)
        if request.method == "PUT":
            found.update(request.mapping())
        return graphs.module_shown(found)

    @plane.add(SERVICE, "GET", "/Graphs/{key}", source=SOURCE)
    def graph(workspace: Workspace, request: Request, key: str) -> Json:
        return _find(kept(workspace).graphs, "Graph", key)

    @plane.add(SERVICE, "GET", "/Graphs/{key}/Interface", source=SOURCE)
    def interface(workspace: Workspace, request: Request, key: str) -> Json:
        return _find(kept(workspace).interfaces, "Graph", key)


def _published(plane: Plane) -> None:
    """Published pipelines."""

    @plane.add(SERVICE, "POST", "/Pipelines/Create", source=SOURCE)
    def create(workspace: Workspace, request: Request) -> Json:
        body = request.mapping()
        if not body.get("Name"):
            raise user_error(400, "A pipeline needs a Name.")
        graph = graphs.keep(workspace, body.get("Graph"), body.get("GraphInterface"))
        defaults = {
            each["Name"]: each.get("DefaultValue")
            for each in (body.get("GraphInterface") or {}).get("Parameters") or []
        }
        made = entity(
            {
                "Name": body["Name"],
                "Description": body.get("Description"),
                "Version": body.get("Version"),
                "GraphId": graph["Id"],
                "TotalRunSteps": len(graph["ModuleNodes"]),
                "ParameterAssignments": {**defaults, **(body.get("ParameterAssignments") or {})},
                "DataSetDefinitionValueAssignments": {},
                "ContinueRunOnStepFailure": body.get("ContinueRunOnStepFailure") or False,
                "EnableNotification": False,
                "Properties": body.get("Properties") or {},
            }
        )
        at = f"{workspace.url}/{SERVICE}{workspace.id}/PipelineRuns/PipelineSubmit/{made['Id']}"
        kept(workspace).pipelines[made["Id"]] = {**made, "Url": at}
        return kept(workspace).pipelines[made["Id"]]

    @plane.add(SERVICE, "GET", "/Pipelines", source=SOURCE)
    def listed(workspace: Workspace, request: Request) -> list[Json]:
        only = request.query.get("activeOnly", "").lower() == "true"
        found = kept(workspace).pipelines.values()
        return [p for p in found if not only or p["EntityStatus"] == "Active"]

    @plane.add(SERVICE, "GET", "/Pipelines/{key}", source=SOURCE)
    def get(workspace: Workspace, request: Request, key: str) -> Json:
        return _find(kept(workspace).pipelines, "Pipeline", key)

    @plane.add(SERVICE, "PUT", "/Pipelines/{key}/status", source=SOURCE)
    def status(workspace: Workspace, request: Request, key: str) -> Answer:
        wanted = str(request.json())
        found = _find(kept(workspace).pipelines, "Pipeline", key)
        if wanted not in STATUSES and wanted not in STATUSES.values():
            raise user_error(400, f"The status {wanted} is not known.")
        found["EntityStatus"] = STATUSES.get(wanted, wanted)
        found["LastModifiedDate"] = stamp()
        return Answer(200)


def _run_entity(workspace: Workspace, graph: Json, info: Json, pipeline: Json | None) -> Json:
    """A pipeline run that is not submitted yet."""
    known: Kept = kept(workspace)
    defaults = {
        each["Name"]: each.get("DefaultValue")
        for each in known.interfaces[graph["Id"]].get("Parameters") or []
    }
    given = info.get("ParameterAssignments") or {}
    unknown = set(given) - set(defaults)
    if unknown:
        # What the graph has no parameter for is ignored by the service; so a typing error shows nowhere.
        given = {name: value for name, value in given.items() if name in defaults}
    name = info.get("RunHistoryExperimentName") or info.get("ExperimentName")
    if not name:
        raise user_error(400, "The pipeline run needs an ExperimentName.")
    made = entity(
        {
            "Description": info.get("Description"),
            "GraphId": graph["Id"],
            "IsSubmitted": False,
            "HasErrors": False,
            "HasWarnings": False,
            "UploadState": "Completed",
            "ParameterAssignments": {**defaults, **given},
            "DataSetDefinitionValueAssignments": {},
            "RunHistoryExperimentName": name,
            "PipelineId": pipeline["Id"] if pipeline else None,
            "RunSource": info.get("RunSource") or "REST",
            "RunType": info.get("RunType") or "HTTP",
            "TotalRunSteps": len(graph["ModuleNodes"]),
            "ContinueRunOnStepFailure": (
                info.get("ContinueRunOnStepFailure")
                if info.get("ContinueRunOnStepFailure") is not None
                else bool((pipeline or {}).get("ContinueRunOnStepFailure"))
            ),
            "Tags": info.get("Tags") or info.get("tags") or {},
            "Properties": info.get("Properties") or {},
        }
    )
    known.runs[made["Id"]] = made
    return made


def _runs(plane: Plane) -> None:
    """Pipeline runs: made from a graph or a published pipeline, asked about, cancelled."""

    @plane.add(SERVICE, "POST", "/PipelineRuns/Unsubmitted/CreationInfoWithGraph", source=SOURCE)
    def unsubmitted(workspace: Workspace, request: Request) -> Json:
        body = request.mapping()
        graph = graphs.keep(workspace, body.get("Graph"), body.get("GraphInterface"))
        info = {
            "ExperimentName": request.query.get("experimentName"),
            **(body.get("CreationInfo") or {}),
        }
        return _run_entity(workspace, graph, info, None)

    @plane.add(SERVICE, "POST", "/PipelineRuns/Submit/{key}", source=SOURCE)
    def submit(workspace: Workspace, request: Request, key: str) -> Json:
        made = _find(kept(workspace).runs, "PipelineRun", key)
        return orchestration.begin(plane, workspace, made)

    @plane.add(SERVICE, "POST", "/PipelineRuns/PipelineSubmit/{key}", source=SOURCE)
    def submit_published(workspace: Workspace, request: Request, key: str) -> Json:
        pipeline = _find(kept(workspace).pipelines, "Pipeline", key)
        if pipeline["EntityStatus"] != "Active":
            raise user_error(400, f"Pipeline {key} is disabled and cannot be submitted.")
        graph = kept(workspace).graphs[pipeline["GraphId"]]
        made = _run_entity(workspace, graph, request.mapping(), pipeline)
        return orchestration.begin(plane, workspace, made)

    @plane.add(SERVICE, "GET", "/PipelineRuns/Pipeline/{key}", source=SOURCE)
    def of_pipeline(workspace: Workspace, request: Request, key: str) -> list[Json]:
        _find(kept(workspace).pipelines, "Pipeline", key)
        found = [run for run in kept(workspace).runs.values() if run["PipelineId"] == key]
        return [orchestration.shown(workspace, run) for run in found]

    @plane.add(SERVICE, "GET", "/PipelineRuns/{key}", source=SOURCE)
    def get(workspace: Workspace, request: Request, key: str) -> Json:
        found = _find(kept(workspace).runs, "PipelineRun", key)
        return orchestration.shown(workspace, found)

    @plane.add(SERVICE, "DELETE", "/PipelineRuns/{key}/Execution", source=SOURCE)
    def cancel(workspace: Workspace, request: Request, key: str) -> Answer:
        _find(kept(workspace).runs, "PipelineRun", key)
        orchestration.cancel(workspace, key)
        return Answer(200)

    at = "/PipelineRuns/{key}/Graph"

    @plane.add(SERVICE, "POST", f"{at}/AllNodes/Status", source=SOURCE)
    def nodes(workspace: Workspace, request: Request, key: str) -> Json:
        _find(kept(workspace).runs, "PipelineRun", key)
        return orchestration.nodes(workspace, key)

    @plane.add(SERVICE, "POST", f"{at}/Node/Status", source=SOURCE)
    def node(workspace: Workspace, request: Request, key: str) -> Json:
        return _find(orchestration.nodes(workspace, key), "Node", _node_of(request))

    @plane.add(SERVICE, "POST", f"{at}/Node/StatusCode", source=SOURCE)
    def node_code(workspace: Workspace, request: Request, key: str) -> Answer:
        found = _find(orchestration.nodes(workspace, key), "Node", _node_of(request))
        return Answer(200, f'"{found["StatusCode"]}"', {"Content-Type": "application/json"})


def _node_of(request: Request) -> str:
    """The node a request's path of nodes leads to."""
    body = request.json()
    path = body if isinstance(body, list) else (body or {}).get("NodeIdPath") or [body]
    return str(path[-1])
