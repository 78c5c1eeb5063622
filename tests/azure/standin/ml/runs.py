"""A run's document and its life: which states follow which, and who has to hear of it."""

from __future__ import annotations

from typing import Any

from tests.azure.standin.messages import Json
from tests.azure.standin.ml.workspace import Workspace, new_id, stamp, user_error

#: The states a run does not leave again.
ENDED = ("Completed", "Failed", "Canceled")
#: What an event makes of a run (azureml-core _restclient/contracts/events.py).
EVENTS = {
    "Start": "Running",
    "Queued": "Queued",
    "Failed": "Failed",
    "Completed": "Completed",
}
#: Fields a PATCH may set (azureml-core _restclient/models/create_run_dto.py).
SETTABLE = {
    "runId",
    "parentRunId",
    "status",
    "startTimeUtc",
    "endTimeUtc",
    "heartbeatEnabled",
    "options",
    "name",
    "displayName",
    "dataContainerId",
    "description",
    "hidden",
    "runType",
    "runTypeV2",
    "properties",
    "scriptName",
    "target",
    "tags",
    "inputDatasets",
    "outputDatasets",
    "runDefinition",
    "primaryMetricName",
    "createdFrom",
    "cancelUri",
    "diagnosticsUri",
    "queueingInfo",
}


def experiment(workspace: Workspace, name: str) -> Json:
    """An experiment, made when missing."""
    if name not in workspace.experiments:
        if not 0 < len(name) <= 255 or not name[0].isalnum():
            raise user_error(400, f"Experiment name '{name}' is not valid.")
        workspace.experiments[name] = {
            "experimentId": new_id(),
            "name": name,
            "description": None,
            "createdUtc": stamp(),
            "archivedTime": None,
            "tags": {},
        }
    return workspace.experiments[name]


def find(workspace: Workspace, run_id: str) -> Json:
    """A run's document; Refused (404) if there is none."""
    run = workspace.runs.get(run_id)
    if run is None:
        raise user_error(404, f"Run {run_id} was not found.", "NotFound")
    return run


def make(workspace: Workspace, experiment_name: str, run_id: str, **fields: Any) -> Json:
    """A new run; `fields` are those of its document."""
    place = experiment(workspace, experiment_name)
    parent = workspace.runs.get(fields.get("parentRunId") or "")
    run: Json = {
        "runNumber": len(workspace.runs) + 1,
        "rootRunId": parent["rootRunId"] if parent else run_id,
        "experimentId": place["experimentId"],
        "createdUtc": stamp(),
        "createdBy": {"userName": "slipway", "userObjectId": None, "userTenantId": None},
        "runId": run_id,
        "parentRunId": None,
        "status": "NotStarted",
        "startTimeUtc": None,
        "endTimeUtc": None,
        "heartbeatEnabled": False,
        "options": {"generateDataContainerIdIfNotSpecified": True},
        "name": None,
        "displayName": run_id,
        "dataContainerId": f"dcid.{run_id}",
        "description": None,
        "hidden": False,
        "runType": None,
        "runTypeV2": {"orchestrator": "SDK", "traits": []},
        "runUuid": new_id(),
        "properties": {},
        "scriptName": None,
        "target": None,
        "tags": {},
        "inputDatasets": [],
        "outputDatasets": [],
        "runDefinition": None,
        "primaryMetricName": None,
        "createdFrom": None,
        "cancelUri": None,
        "completeUri": None,
        "diagnosticsUri": None,
        "error": None,
        "warnings": None,
        "_experiment": experiment_name,
    }
    workspace.runs[run_id] = run
    change(workspace, run, fields)
    return run


def change(workspace: Workspace, run: Json, fields: Json) -> None:
    """Set a run's fields; tags and properties are added to, and a property is never changed."""
    for name, value in fields.items():
        if name not in SETTABLE and name not in ("error", "warnings"):
            raise user_error(
                400, f"Could not find member '{name}' on object of type 'CreateRunDto'."
            )
        if value is None:
            continue
        if name == "status":
            move(workspace, run, value)
        elif name == "tags":
            run["tags"] = {
                **run["tags"],
                **{k: None if v is None else str(v) for k, v in value.items()},
            }
        elif name == "properties":
            before = run["properties"]
            wrong = [key for key, new in value.items() if before.get(key, new) != new]
            if wrong:
                raise user_error(400, f"Properties are immutable: {', '.join(wrong)}")
            run["properties"] = {**before, **value}
        else:
            run[name] = value


def move(workspace: Workspace, run: Json, status: str) -> bool:
    """Let a run enter a state; False if it has ended and stays as it is."""
    if run["status"] in ENDED or (run["status"] == "CancelRequested" and status not in ENDED):
        return False
    run["status"] = status
    if status == "Running" and run["startTimeUtc"] is None:
        run["startTimeUtc"] = stamp()
    if status in ENDED:
        run["startTimeUtc"] = run["startTimeUtc"] or stamp()
        run["endTimeUtc"] = stamp()
    return True


def cancel(workspace: Workspace, run_id: str) -> None:
    """Cancel a run and all below it. What executes is stopped and then ends as Canceled."""
    run = find(workspace, run_id)
    for child in children(workspace, run_id):
        cancel(workspace, child["runId"])
    stop = workspace.stoppers.get(run_id)
    if stop is None:
        move(workspace, run, "Canceled")
    elif run["status"] != "CancelRequested" and move(workspace, run, "CancelRequested"):
        stop()


def fail(workspace: Workspace, run: Json, message: str, code: str = "UserError") -> bool:
    """End a run as Failed with its error; False if it had ended."""
    if not move(workspace, run, "Failed"):
        return False
    run["error"] = {
        "error": {
            "code": code,
            "severity": None,
            "message": message,
            "messageFormat": "{Message}",
            "messageParameters": {"Message": message},
            "details": [],
            "additionalInfo": [],
        },
        "correlation": {"operation": None, "request": None},
        "environment": workspace.region,
        "location": workspace.region,
        "time": stamp(),
        "componentName": "execution-worker",
    }
    return True


def children(workspace: Workspace, run_id: str) -> list[Json]:
    """The runs that name this one as their parent, the oldest first."""
    return [run for run in workspace.runs.values() if run["parentRunId"] == run_id]
