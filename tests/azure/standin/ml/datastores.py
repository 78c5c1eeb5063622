"""Datastores: those on the workspace's own storage, and whatever blobs are registered."""

from __future__ import annotations

from tests.azure.standin.messages import Answer, Json, Request
from tests.azure.standin.ml.workspace import ARTIFACTS, Plane, Workspace, page, user_error

SOURCE = "azureml-core _restclient/operations/data_stores_operations.py"
SERVICE = "datastore/v1.0"
#: Datastores every workspace has: their types, and the containers or shares they are.
OWN = {
    "workspaceblobstore": ("AzureBlob", "azureml-blobstore-{id}"),
    "workspaceartifactstore": ("AzureBlob", ARTIFACTS),
    # What is in the share is not played.
    "workspacefilestore": ("AzureFile", "azureml-filestore-{id}"),
}


def container(workspace: Workspace, name: str) -> str:
    """The container a blob datastore is; Refused (404) if there is no such datastore."""
    return str(find(workspace, name)["azureStorageSection"]["containerName"])


def find(workspace: Workspace, name: str) -> Json:
    """A datastore with its credential; the workspace's own ones are made when first asked for."""
    for own, (kind, place) in OWN.items():
        if own not in workspace.datastores:
            there = place.format(id=workspace.workspace_id)
            if kind == "AzureBlob":
                workspace.account.ensure_container(there)
            workspace.datastores[own] = _own(workspace, own, kind, there)
    store = next((s for n, s in workspace.datastores.items() if n.lower() == name.lower()), None)
    if store is None:
        raise user_error(404, f"Could not find datastore with name: {name}", "NotFound")
    return store


def _own(workspace: Workspace, name: str, kind: str, place: str) -> Json:
    account = workspace.account
    parts = workspace.storage_id.split("/")
    return {
        "name": name,
        "dataStoreType": kind,
        "hasBeenValidated": True,
        "tags": {},
        "azureStorageSection": {
            "accountName": account.name,
            "containerName": place,
            "endpoint": "core.windows.net",
            "protocol": "https",
            "credentialType": "AccountKey",
            "credential": account.key,
            "accountKey": account.key,
            "isSas": False,
            "sasToken": None,
            "blobCacheTimeout": 0,
            "areWorkspaceManagedIdentitiesAllowed": False,
            "serviceDataAccessAuthIdentity": "None",
            "subscriptionId": parts[2],
            "resourceGroup": parts[4],
        },
    }


def add(plane: Plane) -> None:
    @plane.add(SERVICE, "GET", "/default", source=SOURCE)
    def default(workspace: Workspace, request: Request) -> Json:
        return find(workspace, workspace.default_datastore)

    @plane.add(SERVICE, "PUT", "/default/{name}", source=SOURCE)
    def set_default(workspace: Workspace, request: Request, name: str) -> Answer:
        workspace.default_datastore = str(find(workspace, name)["name"])
        return Answer(200)

    @plane.add(SERVICE, "GET", "/datastores", source=SOURCE)
    def listed(workspace: Workspace, request: Request) -> Json:
        find(workspace, workspace.default_datastore)
        # With their credentials: the SDK makes no client of a share without one.
        return page(request, list(workspace.datastores.values()), 100)

    @plane.add(SERVICE, "POST", "/datastores", source=SOURCE)
    def register(workspace: Workspace, request: Request) -> Json:
        return _keep(workspace, request.mapping(), overwrite=False)

    @plane.add(SERVICE, "GET PUT DELETE", "/datastores/{name}", source=SOURCE)
    def one(workspace: Workspace, request: Request, name: str) -> Answer | Json:
        store = find(workspace, name)
        if request.method == "PUT":
            return _keep(workspace, request.mapping(), overwrite=True)
        if request.method == "DELETE":
            if name in OWN:
                raise user_error(400, f"The datastore {name} belongs to the workspace.")
            del workspace.datastores[str(store["name"])]
            return Answer(200)
        return store


def _keep(workspace: Workspace, body: Json, *, overwrite: bool) -> Json:
    name, section = body.get("name"), body.get("azureStorageSection")
    if body.get("dataStoreType") != "AzureBlob" or not isinstance(section, dict):
        raise user_error(400, "The stand-in knows datastores of type AzureBlob only.")
    if not isinstance(name, str) or not name.replace("_", "").isalnum():
        raise user_error(400, "Datastore name must be alphanumeric characters and underscores.")
    if name in workspace.datastores and not overwrite:
        raise user_error(400, f"Another datastore with name {name} already exists.", "Conflict")
    workspace.datastores[name] = {"tags": {}, "hasBeenValidated": True, **body}
    return workspace.datastores[name]
