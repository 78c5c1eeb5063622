"""Metrics as run.log sends them (v2): rows under a name, whose columns have types."""

from __future__ import annotations

from tests.azure.standin.messages import Answer, Json, Request
from tests.azure.standin.ml.workspace import Plane, Workspace, stamp, user_error

SOURCE = "azureml-core _restclient/operations/metric_operations.py"
SERVICE = "metric/v2.0"
#: A batch holds no more (azureml-core _restclient/metrics_client.py, AZUREML_MAX_NUMBER_METRICS_BATCH).
MOST = 50


def add(plane: Plane) -> None:
    @plane.add(SERVICE, "POST", "/runs/{run}/batch", source=SOURCE)
    def post(workspace: Workspace, request: Request, run: str) -> Json:
        if run not in workspace.runs:
            raise user_error(404, f"Run {run} was not found.", "NotFound")
        values = request.mapping().get("values") or []
        if len(values) > MOST:
            raise user_error(400, f"More than {MOST} metrics in one batch.")
        kept = workspace.metrics.setdefault(run, {})
        errors = []
        for metric in values:
            name = metric["name"]
            before = kept.setdefault(name, {**metric, "value": []})
            if before["columns"] != metric["columns"]:
                message = f"The columns of metric {name} differ from those logged before."
                error = {"error": {"code": "UserError", "message": message, "details": []}}
                errors.append({"metric": metric, "errorResponse": error})
                continue
            seen = {row["metricId"] for row in before["value"]}
            before["value"] += [row for row in metric["value"] if row["metricId"] not in seen]
        return {"errors": errors}

    @plane.add(SERVICE, "POST", "/runs/{run}/list", source=SOURCE)
    def listed(workspace: Workspace, request: Request, run: str) -> Json:
        found = workspace.metrics.get(run, {})
        value = [
            {"metricKey": {"name": name, "namespace": None}, "columns": metric["columns"]}
            for name, metric in found.items()
        ]
        return {"value": value, "continuationToken": None}

    @plane.add(SERVICE, "POST", "/runs/{run}/full", source=SOURCE)
    def full(workspace: Workspace, request: Request, run: str) -> Json:
        name = request.mapping().get("metricName")
        metric = workspace.metrics.get(run, {}).get(str(name))
        if metric is None:
            raise user_error(404, f"Metric {name} was not found for run {run}.", "NotFound")
        rows = [
            {"createdUtc": stamp(), "step": index, **row}
            for index, row in enumerate(metric["value"])
        ]
        return {
            **metric,
            "dataContainerId": f"dcid.{run}",
            "value": rows,
            "continuationToken": None,
        }

    for kind in ("experiments", "experimentids"):

        @plane.add(
            "history/v1.0",
            "GET",
            f"/{kind}/{{experiment}}/runs/{{run}}/metricsingest/wait",
            source="azureml-core _restclient/operations/run_metric_operations.py",
        )
        def wait(workspace: Workspace, request: Request, experiment: str, run: str) -> Answer:
            return Answer(200, {})
