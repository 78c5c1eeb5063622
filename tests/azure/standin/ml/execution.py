"""The execution service: a folder's snapshot and a configuration become a run."""

from __future__ import annotations

from tests.azure.standin.messages import Json, Request
from tests.azure.standin.ml import environments, jobs
from tests.azure.standin.ml.workspace import Plane, Workspace, new_id, user_error

SOURCE = "azureml-core _execution/_commands.py"
SERVICE = "execution/v1.0"


def resolved(workspace: Workspace, environment: Json) -> Json:
    """A run's environment as it is registered: a definition that is new becomes a version."""
    name, version = environment.get("name"), environment.get("version")
    if name and version:
        return environments.find(workspace, str(name), str(version))
    return environments.register(workspace, str(name or f"Experiment {new_id()[:8]}"), environment)


def add(plane: Plane) -> None:
    jobs.declare(plane.world)

    @plane.add(SERVICE, "POST", "/experiments/{experiment}/snapshotrun", source=SOURCE)
    def submit(workspace: Workspace, request: Request, experiment: str) -> Json:
        body = {key[:1].lower() + key[1:]: value for key, value in request.mapping().items()}
        configuration, snapshot = body.get("configuration"), body.get("snapshotId")
        if not isinstance(configuration, dict) or not snapshot:
            raise user_error(400, "The run definition needs Configuration and SnapshotId.")
        configuration = {
            **configuration,
            "environment": resolved(workspace, configuration.get("environment") or {}),
        }
        run_id = request.query.get("runId") or f"{experiment}_{new_id()[:8]}"
        parent = body.get("parentRunId")
        order = jobs.Order(
            experiment, run_id, configuration, snapshot, {"parentRunId": parent} if parent else {}
        )
        jobs.submit(plane, workspace, order)
        return {"runId": run_id, "warnings": []}
