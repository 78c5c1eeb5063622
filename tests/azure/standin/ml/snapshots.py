"""Snapshots: the files of a submitted folder, kept as blobs and laid out again for a run.

A snapshot lists its whole tree and the blobs of the files that its parent does not have.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from tests.azure.standin.messages import Json, Request
from tests.azure.standin.ml.workspace import Plane, Workspace, new_id, stamp, user_error

SOURCE = "azureml-core _restclient/snapshots_client.py"
CONTAINER = "azureml-snapshots"
#: azureml-core _restclient/constants.py
MOST_FILES, MOST_BYTES = 2000, 300 * 1024 * 1024
LARGE = "snapshot too large"
NOTHING = "00000000-0000-0000-0000-000000000000"


def _kept(workspace: Workspace) -> dict[str, Json]:
    """Snapshots by id: their `root`, and their `files` as {path: [hash, blob]}."""
    kept: dict[str, Json] = workspace.rooms.setdefault("snapshots", {})
    return kept


def find(workspace: Workspace, snapshot_id: str) -> Json:
    """A snapshot; Refused (404) if there is none."""
    if snapshot_id not in _kept(workspace):
        raise user_error(404, f"Snapshot {snapshot_id} was not found.", "NotFound")
    return _kept(workspace)[snapshot_id]


def lay_out(workspace: Workspace, snapshot_id: str, folder: Path) -> None:
    """Write a snapshot's files below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, (_, blob) in find(workspace, snapshot_id)["files"].items():
        content = workspace.account.get(CONTAINER, blob)
        if content is None:
            raise user_error(404, f"Snapshot {snapshot_id}: {path} was never uploaded.", "NotFound")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _files(node: Json, at: str = "") -> Iterator[tuple[str, str]]:
    """Path and hash of each file in a tree."""
    for name, child in (node.get("children") or {}).items():
        path = f"{at}{name}"
        if PurePosixPath(name).name != name or name in (".", ".."):
            raise user_error(400, f"The file name '{path}' is not valid.")
        if child.get("type") == "File":
            yield path, str(child.get("hash"))
        else:
            yield from _files(child, f"{path}/")


def _blob(workspace: Workspace, address: str) -> str:
    """The blob's name in an address that `getblob` gave."""
    place = urlsplit(address)
    if place.hostname != workspace.account.host or not place.path.startswith(f"/{CONTAINER}/"):
        raise user_error(400, "A file lies outside the workspace's storage.")
    return unquote(place.path.removeprefix(f"/{CONTAINER}/"))


def _create(workspace: Workspace, snapshot_id: str, body: Json) -> Json:
    if workspace.world.faults.has(LARGE):
        raise user_error(400, "The snapshot exceeds the limit of 300 MB.", "SnapshotTooLarge")
    root = body.get("DirTreeNode")
    if not isinstance(root, dict):
        raise user_error(400, "The snapshot has no DirTreeNode.")
    nodes = (body.get("FileRevisionList") or {}).get("FileNodes") or []
    size = sum(int(node.get("FileSize") or 0) for node in nodes)
    if len(nodes) > MOST_FILES or size > MOST_BYTES:
        raise user_error(400, "The snapshot exceeds its limits.", "SnapshotTooLarge")
    sent = {str(node["FullName"]): _blob(workspace, node["BlobUri"]) for node in nodes}
    parent = _kept(workspace).get(str(body.get("ParentSnapshotId")), {}).get("files", {})
    by_hash = dict(parent.values())
    files: dict[str, list[str]] = {}
    for path, has in _files(root):
        blob = sent.get(path) or by_hash.get(has)
        if blob is None:
            raise user_error(400, f"Neither the snapshot nor its parent holds the file {path}.")
        files[path] = [has, blob]
    made = {
        "id": snapshot_id,
        "root": root,
        "parentId": body.get("ParentSnapshotId"),
        "tags": body.get("Tags") or {},
        "properties": body.get("Properties") or {},
        "createdTime": stamp(),
        "files": files,
    }
    _kept(workspace)[snapshot_id] = made
    return _shown(made)


def _shown(snapshot: Json) -> Json:
    return {name: value for name, value in snapshot.items() if name != "files"}


def add(plane: Plane) -> None:
    plane.world.faults.declare(LARGE, "a submitted folder is refused as too large")

    @plane.add("content/v1.0", "GET", "/snapshots/latest/metadata", source=SOURCE)
    def latest(workspace: Workspace, request: Request) -> Json:
        # A parent of one's own comes from the client's cache: here begins a tree with nothing in it.
        empty: Json = {
            "name": "",
            "hash": None,
            "type": "Directory",
            "timestamp": stamp(),
            "children": {},
        }
        return {"id": NOTHING, "root": empty}

    @plane.add("content/v2.0", "POST", "/snapshots/getblob", source=SOURCE)
    def places(workspace: Workspace, request: Request) -> Json:
        workspace.account.ensure_container(CONTAINER)
        batch = new_id()
        nodes = [
            {
                "fullName": name,
                "blobUri": workspace.account.sas(CONTAINER, f"{batch}/{name}", "rcw"),
            }
            for name in request.mapping().get("FileNames") or []
        ]
        return {"fileNodes": nodes}

    @plane.add("content/v2.0", "POST", "/snapshots/{key}", source=SOURCE)
    def create(workspace: Workspace, request: Request, key: str) -> Json:
        return _create(workspace, key, request.mapping())

    @plane.add("content/v1.0", "GET", "/snapshots/{key}", source=SOURCE)
    def get(workspace: Workspace, request: Request, key: str) -> Json:
        return _shown(find(workspace, key))

    @plane.add("content/v2.0", "POST", "/snapshots/{key}/zip", source=SOURCE)
    def zipped(workspace: Workspace, request: Request, key: str) -> Json:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for path, (_, blob) in find(workspace, key)["files"].items():
                archive.writestr(path, workspace.account.get(CONTAINER, blob) or b"")
        workspace.account.put(CONTAINER, f"zips/{key}.zip", content.getvalue())
        return {"zipSasUri": workspace.account.sas(CONTAINER, f"zips/{key}.zip", "r")}
