"""The credential service: the workspace's own secrets, kept in its Key Vault."""

from __future__ import annotations

from tests.azure.standin.messages import Answer, Json, Request
from tests.azure.standin.ml.workspace import Plane, Workspace, page, stamp, user_error

SOURCE = "azureml-core _restclient/operations/credential_operations.py"
SERVICE = "credential/v2.0"


def _vault(workspace: Workspace) -> dict[str, Json]:
    kept: dict[str, Json] = workspace.rooms.setdefault("secrets", {})
    return kept


def _keep(workspace: Workspace, secret: Json) -> None:
    name = secret.get("name")
    if not isinstance(name, str) or not name:
        raise user_error(400, "The secret has no name.")
    made = _vault(workspace).get(name, {}).get("createdTime", stamp())
    _vault(workspace)[name] = {**secret, "createdTime": made, "modifiedTime": stamp()}


def add(plane: Plane) -> None:
    @plane.add(SERVICE, "PUT", "/secrets", source=SOURCE)
    def put(workspace: Workspace, request: Request) -> Answer:
        _keep(workspace, request.mapping())
        return Answer(200, {})

    @plane.add(SERVICE, "PUT", "/secrets:putbatch", source=SOURCE)
    def put_batch(workspace: Workspace, request: Request) -> Answer:
        for secret in request.mapping()["secrets"]:
            _keep(workspace, secret)
        return Answer(200, {})

    @plane.add(SERVICE, "GET", "/secrets", source=SOURCE)
    def listed(workspace: Workspace, request: Request) -> Json:
        return page(request, [{**s, "value": None} for s in _vault(workspace).values()], 100)

    @plane.add(SERVICE, "POST", "/secrets:getbatch", source=SOURCE)
    def get_batch(workspace: Workspace, request: Request) -> Json:
        names = [secret["name"] for secret in request.mapping()["secrets"]]
        vault = _vault(workspace)
        found = [vault[name] for name in names if name in vault]
        return {"secrets": found, "notFoundSecrets": [n for n in names if n not in vault]}

    @plane.add(SERVICE, "GET DELETE", "/secrets/{name}", source=SOURCE)
    def one(workspace: Workspace, request: Request, name: str) -> Answer | Json:
        secret = _vault(workspace).get(name)
        if secret is None:
            raise user_error(404, f"Secret {name} was not found.", "NotFound")
        if request.method == "DELETE":
            del _vault(workspace)[name]
            return Answer(200)
        return secret
