"""Artifacts: named blobs of runs and uploads, written and read by SAS.

An artifact's id is `{origin}/{container}/{path}`; a run's are those of `ExperimentRun/dcid.{run id}`.
"""

from __future__ import annotations

import re

from tests.azure.standin.messages import Answer, Json, Request
from tests.azure.standin.ml.workspace import ARTIFACTS, Plane, Workspace, page, stamp, user_error

SOURCE = "azureml-core _restclient/operations/artifact_operations.py"
RUN_SOURCE = "azureml-core _restclient/operations/run_artifact_operations.py"
SERVICE = "artifact/v2.0"
HISTORY = "history/v1.0"
RUNS = "ExperimentRun"
PAGE = 500


def run_container(run_id: str) -> str:
    return f"dcid.{run_id}"


def put(workspace: Workspace, run_id: str, path: str, content: bytes) -> None:
    """Keep a file as a run's artifact."""
    workspace.account.ensure_container(ARTIFACTS)
    made = _make(workspace, RUNS, run_container(run_id), path)
    workspace.account.put(ARTIFACTS, str(made["artifactId"]), content)


def has(workspace: Workspace, run_id: str, path: str) -> bool:
    """Whether the run has such an artifact."""
    return f"{RUNS}/{run_container(run_id)}/{path}" in workspace.artifacts


def uri(workspace: Workspace, artifact_id: str, permissions: str = "r") -> str:
    """The artifact's address with a SAS."""
    return workspace.account.sas(ARTIFACTS, artifact_id, permissions)


def _make(workspace: Workspace, origin: str, container: str, path: str) -> Json:
    path = path.strip("/")
    if not path or len(path) > 1024 or any(part in (".", "..") for part in path.split("/")):
        raise user_error(400, f"The artifact path '{path}' is not valid.")
    key = f"{origin}/{container}/{path}"
    return workspace.artifacts.setdefault(
        key,
        {
            "artifactId": key,
            "origin": origin,
            "container": container,
            "path": path,
            "etag": None,
            "createdTime": stamp(),
            "dataPath": {"dataStoreName": "workspaceartifactstore", "relativePath": key},
            "tags": {},
        },
    )


def _content(workspace: Workspace, artifact: Json, permissions: str = "r") -> Json:
    named = {name: artifact[name] for name in ("origin", "container", "path")}
    return {"contentUri": uri(workspace, artifact["artifactId"], permissions), **named}


def _batch(workspace: Workspace, request: Request, origin: str, container: str) -> Json:
    """Room for new artifacts: where to write each one's content."""
    paths = request.mapping().get("paths")
    if not isinstance(paths, list) or not paths or len(paths) > PAGE:
        raise user_error(400, f"The command must name 1 to {PAGE} paths.")
    workspace.account.ensure_container(ARTIFACTS)
    made, errors = {}, {}
    for item in paths:
        path = item["path"]
        key = f"{origin}/{container}/{path.strip('/')}"
        if key in workspace.artifacts:
            # An artifact is written once.
            message = f"Resource Conflict: ArtifactId {key} already exists."
            error = {"code": "UserError", "message": message, "details": []}
            errors[path] = {"error": error}
        else:
            made[path] = _make(workspace, origin, container, path)
    content = {path: _content(workspace, artifact, "rcw") for path, artifact in made.items()}
    return {"artifacts": made, "artifactContentInformation": content, "errors": errors}


def below(workspace: Workspace, prefix: str) -> list[Json]:
    """The artifacts whose id begins with `prefix`, in order."""
    prefix = re.sub("/+", "/", prefix)
    return [
        artifact for key, artifact in sorted(workspace.artifacts.items()) if key.startswith(prefix)
    ]


def _one(workspace: Workspace, key: str) -> Json:
    artifact = workspace.artifacts.get(key)
    if artifact is None:
        raise user_error(404, f"Artifact {key} was not found.", "NotFound")
    return artifact


def add(plane: Plane) -> None:
    @plane.add(SERVICE, "POST", "/artifacts/batch/metadata/{origin}/{container}", source=SOURCE)
    def batch(workspace: Workspace, request: Request, origin: str, container: str) -> Json:
        return _batch(workspace, request, origin, container)

    @plane.add(
        SERVICE,
        "GET",
        "/artifacts/prefix/contentinfo/{origin}/{container}/{path...}",
        source=SOURCE,
    )
    @plane.add(SERVICE, "GET", "/artifacts/prefix/contentinfo/{origin}/{container}", source=SOURCE)
    @plane.add(SERVICE, "GET", "/artifacts/prefix/contentinfo/{origin}/{container}/", source=SOURCE)
    def by_prefix(
        workspace: Workspace, request: Request, origin: str, container: str, path: str = ""
    ) -> Json:
        found = below(workspace, f"{origin}/{container}/{path}")
        return page(request, [_content(workspace, artifact) for artifact in found], PAGE)

    @plane.add(
        SERVICE, "GET", "/artifacts/contentinfo/{origin}/{container}/{path...}", source=SOURCE
    )
    def content(
        workspace: Workspace, request: Request, origin: str, container: str, path: str
    ) -> Json:
        return _content(workspace, _one(workspace, f"{origin}/{container}/{path}"))

    @plane.add(
        SERVICE, "GET DELETE", "/artifacts/metadata/{origin}/{container}/{path...}", source=SOURCE
    )
    def metadata(
        workspace: Workspace, request: Request, origin: str, container: str, path: str
    ) -> Answer | Json:
        artifact = _one(workspace, f"{origin}/{container}/{path}")
        if request.method == "DELETE":
            del workspace.artifacts[artifact["artifactId"]]
            return Answer(200)
        return artifact

    @plane.add(SERVICE, "GET", "/artifacts/{origin}/{container}", source=SOURCE)
    def listed(workspace: Workspace, request: Request, origin: str, container: str) -> Json:
        return page(request, below(workspace, f"{origin}/{container}/"), PAGE)

    for kind in ("experiments", "experimentids"):
        at = f"/{kind}/{{experiment}}/runs/{{run}}/artifacts"

        @plane.add(HISTORY, "POST", f"{at}/batch/metadata", source=RUN_SOURCE)
        def run_batch(workspace: Workspace, request: Request, experiment: str, run: str) -> Json:
            return _batch(workspace, request, RUNS, run_container(run))

        @plane.add(HISTORY, "GET", at, source=RUN_SOURCE)
        def run_listed(workspace: Workspace, request: Request, experiment: str, run: str) -> Json:
            return page(request, below(workspace, f"{RUNS}/{run_container(run)}/"), PAGE)

        @plane.add(HISTORY, "GET", f"{at}/path/{{path...}}", source=RUN_SOURCE)
        def run_path(
            workspace: Workspace, request: Request, experiment: str, run: str, path: str
        ) -> Json:
            return page(request, below(workspace, f"{RUNS}/{run_container(run)}/{path}"), PAGE)

        @plane.add(HISTORY, "GET", f"{at}/prefix/contentinfo/{{path...}}", source=RUN_SOURCE)
        def run_prefix(
            workspace: Workspace, request: Request, experiment: str, run: str, path: str
        ) -> Json:
            found = below(workspace, f"{RUNS}/{run_container(run)}/{path}")
            return page(request, [_content(workspace, artifact) for artifact in found], PAGE)

        @plane.add(HISTORY, "GET", f"{at}/contentinfo/{{path...}}", source=RUN_SOURCE)
        @plane.add(HISTORY, "GET", f"{at}/contentinfo", source=RUN_SOURCE)
        def run_content(
            workspace: Workspace, request: Request, experiment: str, run: str, path: str = ""
        ) -> Json:
            path = path or request.query.get("path", "")
            return _content(workspace, _one(workspace, f"{RUNS}/{run_container(run)}/{path}"))
