"""Run history: experiments, runs, their events, tags and details."""

from __future__ import annotations

from typing import Any

from tests.azure.standin.messages import Answer, Json, Request
from tests.azure.standin.ml import artifacts, filters, runs
from tests.azure.standin.ml.workspace import (
    EXPERIMENTS,
    Plane,
    Workspace,
    page,
    stamp,
    user_error,
)

EXPERIMENT_SOURCE = "azureml-core _restclient/operations/experiment_operations.py"
SOURCE = "azureml-core _restclient/operations/run_operations.py"
EVENT_SOURCE = "azureml-core _restclient/operations/events_operations.py"
SERVICE = "history/v1.0"
EVENT = "Microsoft.MachineLearning.Run."
#: Log files a run's details list, beside what it uploads below `logs/` and `azureml-logs/`.
LOGS = ("user_logs/", "system_logs/", "azureml-logs/", "logs/")


def shown(run: Json) -> Json:
    """A run's document without what is ours."""
    return {name: value for name, value in run.items() if not name.startswith("_")}


def experiment_of(workspace: Workspace, name_or_id: str) -> Json:
    """An experiment by name or id; Refused (404) if there is none."""
    for name, found in workspace.experiments.items():
        if name_or_id in (name, found["experimentId"]):
            return found
    raise user_error(404, f"Experiment {name_or_id} was not found.", "NotFound")


def _run_of(workspace: Workspace, experiment: str, run_id: str) -> Json:
    run = runs.find(workspace, run_id)
    if experiment_of(workspace, experiment)["name"] != run["_experiment"]:
        raise user_error(404, f"Run {run_id} was not found.", "NotFound")
    return run


def _query(request: Request, items: list[Json]) -> Json:
    """A page of the items that a query's filter lets through, in its order."""
    query = request.mapping() if request.body else {}
    found = filters.ordered(filters.matching(items, query.get("filter")), query.get("orderby"))
    start, size = int(query.get("continuationToken") or 0), int(query.get("top") or 500)
    more = start + size < len(found)
    token = str(start + size) if more else None
    return {"value": [shown(i) for i in found[start : start + size]], "continuationToken": token}


def _details(workspace: Workspace, run: Json) -> Json:
    """What `run.get_details()` shows, with the addresses of the log files."""
    prefix = f"{artifacts.RUNS}/{artifacts.run_container(run['runId'])}/"
    logs = [a for a in artifacts.below(workspace, prefix) if str(a["path"]).startswith(LOGS)]
    same = (
        "runId target status startTimeUtc endTimeUtc error warnings properties inputDatasets "
        "outputDatasets runDefinition"
    )
    return {
        **{name: run[name] for name in same.split()},
        "logFiles": {a["path"]: artifacts.uri(workspace, a["artifactId"]) for a in logs},
        "services": {},
        "submittedBy": "slipway",
    }


def _hear(workspace: Workspace, run: Json, event: Json) -> None:
    """What an event means for its run."""
    name = str(event.get("name", ""))
    kind = name.removeprefix(EVENT)
    data: Any = event.get("data") or {}
    if kind == "Error":
        told = (data.get("ErrorResponse") or {}).get("error") or {}
        run["error"] = {"error": {"code": "UserError", "details": [], **told}}
    elif kind == "Warning":
        run["warnings"] = [
            *(run["warnings"] or []),
            {"source": data.get("Source"), "message": data.get("Message")},
        ]
    elif kind in ("Canceled", "CancelRequested"):
        runs.cancel(workspace, run["runId"])
    elif kind in runs.EVENTS:
        runs.move(workspace, run, runs.EVENTS[kind])
    elif kind not in ("Heartbeat", "QueueingInfo"):
        raise user_error(400, f"The event {name} is not known.")


def add(plane: Plane) -> None:
    _experiments(plane)
    for kind in ("experiments", "experimentids"):
        _runs(plane, f"/{kind}/{{experiment}}")

    @plane.add(SERVICE, "GET", "/runs/{run}", source=SOURCE)
    def workspace_run(workspace: Workspace, request: Request, run: str) -> Json:
        return shown(runs.find(workspace, run))

    for host in (EXPERIMENTS, "{region}.api.azureml.ms"):

        @plane.add(
            "execution/v1.0",
            "POST",
            "/experiments/{experiment}/runId/{run}/cancel",
            source="azureml-core run.cancel() on a document with cancelUri; the path is assumed",
            host=host,
        )
        def cancel(workspace: Workspace, request: Request, experiment: str, run: str) -> Answer:
            runs.cancel(workspace, run)
            return Answer(200, {"runId": run})


def _experiments(plane: Plane) -> None:
    @plane.add(SERVICE, "POST", "/experiments:query", source=EXPERIMENT_SOURCE)
    def query(workspace: Workspace, request: Request) -> Json:
        view = str(request.mapping().get("viewType") or "ActiveOnly") if request.body else "All"
        items = [
            e
            for e in workspace.experiments.values()
            if view == "All" or (e["archivedTime"] is None) == (view != "ArchivedOnly")
        ]
        return _query(request, items)

    @plane.add(SERVICE, "GET", "/experiments/{name}", source=EXPERIMENT_SOURCE)
    def get(workspace: Workspace, request: Request, name: str) -> Json:
        return experiment_of(workspace, name)

    @plane.add(SERVICE, "POST", "/experiments/{name}", source=EXPERIMENT_SOURCE)
    def create(workspace: Workspace, request: Request, name: str) -> Json:
        return runs.experiment(workspace, name)

    @plane.add(SERVICE, "GET PATCH DELETE", "/experimentids/{key}", source=EXPERIMENT_SOURCE)
    def by_id(workspace: Workspace, request: Request, key: str) -> Answer | Json:
        found = experiment_of(workspace, key)
        if request.method == "DELETE":
            if any(run["_experiment"] == found["name"] for run in workspace.runs.values()):
                raise user_error(400, "Only empty experiments can be deleted.")
            del workspace.experiments[found["name"]]
            return Answer(200)
        if request.method == "PATCH":
            body = request.mapping()
            found["tags"] = {**found["tags"], **(body.get("tags") or {})}
            if body.get("description") is not None:
                found["description"] = body["description"]
            if body.get("archive") is not None:
                found["archivedTime"] = stamp() if body["archive"] else None
        return found


def _runs(plane: Plane, at: str) -> None:
    """The routes of runs below an experiment's name or id."""

    @plane.add(SERVICE, "POST", f"{at}/runs:query", source=SOURCE)
    def query(workspace: Workspace, request: Request, experiment: str) -> Json:
        name = experiment_of(workspace, experiment)["name"]
        return _query(request, [r for r in workspace.runs.values() if r["_experiment"] == name])

    @plane.add(SERVICE, "GET", f"{at}/runs/{{run}}", source=SOURCE)
    def get(workspace: Workspace, request: Request, experiment: str, run: str) -> Json:
        return shown(_run_of(workspace, experiment, run))

    @plane.add(SERVICE, "PATCH", f"{at}/runs/{{run}}", source=SOURCE)
    def patch(workspace: Workspace, request: Request, experiment: str, run: str) -> Json:
        body = request.mapping()
        if run not in workspace.runs:
            name = experiment_of(workspace, experiment)["name"]
            return shown(runs.make(workspace, name, run, **body))
        runs.change(workspace, _run_of(workspace, experiment, run), body)
        return shown(workspace.runs[run])

    @plane.add(SERVICE, "PATCH", f"{at}/batch/runs", source=SOURCE)
    def batch(workspace: Workspace, request: Request, experiment: str) -> Json:
        name = experiment_of(workspace, experiment)["name"]
        made = {}
        for body in request.mapping()["runs"]:
            made[body["runId"]] = shown(runs.make(workspace, name, **_named(body)))
        return {"runs": made, "errors": {}}

    @plane.add(SERVICE, "GET", f"{at}/runs/{{run}}/details", source=SOURCE)
    def details(workspace: Workspace, request: Request, experiment: str, run: str) -> Json:
        return _details(workspace, _run_of(workspace, experiment, run))

    @plane.add(SERVICE, "GET", f"{at}/runs/{{run}}/children", source=SOURCE)
    def children(workspace: Workspace, request: Request, experiment: str, run: str) -> Json:
        _run_of(workspace, experiment, run)
        found = filters.matching(runs.children(workspace, run), request.query.get("$filter"))
        return page(request, [shown(child) for child in found], 500)

    @plane.add(SERVICE, "GET POST", f"{at}/runs/{{run}}/token", source=SOURCE)
    def token(workspace: Workspace, request: Request, experiment: str, run: str) -> Json:
        _run_of(workspace, experiment, run)
        return {"token": plane.run_token(workspace, run), "expiryTimeUtc": None}

    @plane.add(SERVICE, "DELETE POST", f"{at}/runs/{{run}}/tags", source=SOURCE)
    def delete_tags(workspace: Workspace, request: Request, experiment: str, run: str) -> Json:
        found = _run_of(workspace, experiment, run)
        body = request.json()
        names = body if isinstance(body, list) else (body or {}).get("tags") or []
        found["tags"] = {k: v for k, v in found["tags"].items() if k not in names}
        return {"errors": {}}

    @plane.add(SERVICE, "POST", f"{at}/runs/{{run}}/events", source=EVENT_SOURCE)
    def event(workspace: Workspace, request: Request, experiment: str, run: str) -> Answer:
        _hear(workspace, _run_of(workspace, experiment, run), request.mapping())
        return Answer(200)

    @plane.add(SERVICE, "POST", f"{at}/batch/events", source=EVENT_SOURCE)
    def events(workspace: Workspace, request: Request, experiment: str) -> Json:
        for each in request.mapping()["events"]:
            run_id = str((each.get("data") or {}).get("RunId"))
            _hear(workspace, _run_of(workspace, experiment, run_id), each)
        return {"errors": []}


def _named(body: Json) -> Json:
    return {"run_id": body["runId"], **body}
