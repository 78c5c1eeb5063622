"""The data file in the workspace: uploaded once per content, registered as a version of a data set.

A data set version's tags name the file's SHA-256 and where it lies in its datastore, so that what is
fetched can be held against them.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import console
from scripts.dataset import file_sha256
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure.workspace import explained, silenced, status_of
from scripts.settings import Settings


@dataclass(frozen=True)
class DataVersion:
    """A version of a data set in the workspace."""

    name: str
    version: int
    sha256: str
    datastore: str
    path: str


def dataset_name(settings: Settings) -> str:
    """The data set's name: DATASET_NAME, else made from MODEL_NAME."""
    return settings.DATASET_NAME or f"{settings.require('MODEL_NAME')}-data"


def dataset_version(settings: Settings) -> int | None:
    """DATASET_VERSION as a number, None for the latest; UsageError if it is neither."""
    wanted = settings.DATASET_VERSION
    if wanted == "latest":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", wanted):
        raise UsageError(
            f"DATASET_VERSION={wanted} should be a number or latest", "correct it in .env"
        )
    return int(wanted)


def open_datastore(workspace: Any, settings: Settings) -> Any:
    """The datastore that DATASTORE_NAME names, else the workspace's default."""
    name = settings.DATASTORE_NAME
    with explained(f"datastore {name or '(default)'}"), silenced():
        from azureml.core import Datastore

        try:
            found = Datastore.get(workspace, name) if name else workspace.get_default_datastore()
        except Exception as error:
            if not name or (status_of(error) != 404 and "Could not find" not in str(error)):
                raise
            found = None
    if found is None:
        raise UsageError(
            f"workspace {workspace.name} has no datastore {name}",
            "correct DATASTORE_NAME in .env, or leave it empty for the workspace's default",
        )
    if found.datastore_type != "AzureBlob":
        raise UsageError(
            f"datastore {found.name} is of type {found.datastore_type}, not AzureBlob",
            "set DATASTORE_NAME in .env to one of blobs, such as workspaceblobstore",
        )
    return found


def ensure_data(workspace: Any, settings: Settings, file: Path, sha256: str) -> DataVersion:
    """The version of the data set that holds `file`; with DATASET_VERSION it must be that one."""
    name, pinned = dataset_name(settings), dataset_version(settings)
    known = find_version(workspace, name, pinned)
    if known is not None and known.tags.get("sha256") == sha256:
        return _version(known)
    if pinned is not None:
        raise UsageError(
            f"data set {name} {pinned} "
            + ("does not hold the file that DATA_PATH names" if known else "does not exist"),
            "set DATASET_VERSION=latest, which takes DATA_PATH's file as a new version, "
            "or DATA_PATH to the file of that version",
        )
    datastore = open_datastore(workspace, settings)
    path = _blob_path(sha256, file)
    _upload(datastore, file, path)
    return _register(workspace, datastore, name, path, sha256)


def _blob_path(sha256: str, file: Path) -> str:
    return f"slipway/data/{sha256}/{file.name}"


def _blob(datastore: Any, path: str) -> Any:
    return datastore.blob_service.get_blob_client(container=datastore.container_name, blob=path)


def find_version(workspace: Any, name: str, version: int | None) -> Any | None:
    """The SDK's data set of that name and version (None: the latest), or None."""
    with explained(f"data set {name}"), silenced():
        from azureml.core import Dataset

        try:
            return Dataset.get_by_name(workspace, name, version or "latest")
        except Exception as error:
            if "Cannot find dataset" not in str(error) and status_of(error) != 404:
                raise
    return None


def _upload(datastore: Any, file: Path, path: str) -> None:
    with explained(f"datastore {datastore.name}"), silenced():
        blob = _blob(datastore, path)
        size = file.stat().st_size
        # The path is the content's hash: what is there whole needs no second look.
        if blob.exists() and blob.get_blob_properties().size == size:
            return
    console.step(f"uploading {file.name} ({size / 1e6:.1f} MB) to datastore {datastore.name}")
    with explained(f"datastore {datastore.name}"), silenced(), file.open("rb") as stream:
        blob.upload_blob(stream, overwrite=True, length=size, max_concurrency=4)


def _register(workspace: Any, datastore: Any, name: str, path: str, sha256: str) -> DataVersion:
    tags = {"sha256": sha256, "datastore": datastore.name, "path": path}
    with explained(f"data set {name}"), silenced():
        from azureml.core import Dataset

        made = Dataset.File.from_files((datastore, path), validate=False)
        try:
            made = made.register(workspace, name, tags=tags, create_new_version=True)
        except Exception as error:
            # Azure keeps one version of equal content: data that came back, or another machine's. The
            # SDK says so in words of its own, or passes on those of the service.
            equal = re.search(r'name="([^"]+)", version=([0-9]+)', str(error)) or re.search(
                r"has been registered as (.+):([0-9]+) \(name:version\)", str(error)
            )
            if equal is None:
                raise
            made = Dataset.get_by_name(workspace, equal.group(1), int(equal.group(2)))
    console.step(f"data set {made.name} {made.version}")
    return _version(made)


def _version(found: Any) -> DataVersion:
    tags = found.tags or {}
    return DataVersion(
        str(found.name),
        int(found.version),
        str(tags.get("sha256", "")),
        str(tags.get("datastore", "")),
        str(tags.get("path", "")),
    )


def register_path(workspace: Any, settings: Settings, path: str) -> DataVersion:
    """The version of the data set that holds what is at `path` in the datastore now.

    What a pipeline is given as `data_file_path`. Azure knows data sets by their paths alone, and the
    file there may be overwritten, so it is a copy that is registered.
    """
    datastore = open_datastore(workspace, settings)
    blob = _blob(datastore, path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(path).name
        with explained(f"datastore {datastore.name}"), silenced():
            if not blob.exists():
                raise UsageError(
                    f"datastore {datastore.name} has no file {path}", "correct data_file_path"
                )
            with file.open("wb") as stream:
                blob.download_blob().readinto(stream)
        return ensure_data(workspace, settings, file, file_sha256(file))


def fetch(workspace: Any, name: str, version: int | None, folder: Path) -> tuple[Path, DataVersion]:
    """Download a version of the data set into `folder`; SlipwayError if it is not what was registered."""
    found = find_version(workspace, name, version)
    if found is None:
        raise UsageError(
            f"workspace {workspace.name} has no data set {name}"
            + (f" {version}" if version else ""),
            "run `make train`, which registers DATA_PATH's file",
        )
    return _fetch(workspace, found, folder)


def _fetch(workspace: Any, found: Any, folder: Path) -> tuple[Path, DataVersion]:
    known = _version(found)
    folder.mkdir(parents=True, exist_ok=True)
    console.step(f"fetching data set {known.name} {known.version}")
    if not known.path:
        # Not registered by us: the SDK's own engine knows how to read it.
        with explained(f"data set {known.name}"), silenced():
            files = [Path(path) for path in found.download(str(folder), overwrite=True)]
        if len(files) != 1:
            raise UsageError(
                f"data set {known.name} {known.version} has {len(files)} files",
                "a data set for training is one CSV or Parquet file",
            )
        digest = file_sha256(files[0])
        return files[0], DataVersion(known.name, known.version, digest, "", "")
    with explained(f"data set {known.name}"), silenced():
        from azureml.core import Datastore

        datastore = Datastore.get(workspace, known.datastore)
    file = folder / Path(known.path).name
    _download(datastore, known.path, known.sha256, file)
    return file, known


def _download(datastore: Any, path: str, sha256: str, file: Path) -> None:
    """The datastore's file at `path` as `file`, whole or not at all; SlipwayError if it is another."""
    part = file.with_name(f".{file.name}.part")
    try:
        with explained(f"datastore {datastore.name}"), silenced(), part.open("wb") as stream:
            _blob(datastore, path).download_blob().readinto(stream)
        if file_sha256(part) != sha256:
            raise SlipwayError(
                f"{path} in datastore {datastore.name} is no longer what was registered",
                "remove that file from the datastore and run `make train`, which uploads it again",
            )
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def restore_data(workspace: Any, settings: Settings, file: Path, sha256: str | None) -> None:
    """Put the data file where DATA_PATH wants it: the version that DATASET_VERSION pins, else the content
    with that hash, if it is kept, else the latest version. Nothing if there is none yet.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    name, pinned = dataset_name(settings), dataset_version(settings)
    if pinned is None and sha256 is not None:
        datastore, path = open_datastore(workspace, settings), _blob_path(sha256, file)
        with explained(f"datastore {datastore.name}"), silenced():
            kept = _blob(datastore, path).exists()
        if kept:
            console.step(f"fetching {file.name} from datastore {datastore.name}")
            _download(datastore, path, sha256, file)
            return
    found = find_version(workspace, name, pinned)
    if found is None:
        return
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as folder:
        fetched, known = _fetch(workspace, found, Path(folder))
        if fetched.suffix.lower() != file.suffix.lower():
            raise UsageError(
                f"data set {name} {known.version} is a {fetched.suffix} file",
                f"set DATA_PATH to a file that ends so; {file.name} is not here",
            )
        fetched.replace(file)
