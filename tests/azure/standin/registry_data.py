"""What is in a registry, as az asks for it: repositories, tags and manifests under /acr/v1.

Read from the registry's own files; the registry itself answers what lies under /v2.
Source: Azure/azure-rest-api-specs containerregistry data-plane (containerregistry.json).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt

from tests.azure.standin.messages import Answer, Json, Request
from tests.azure.standin.registry import ISSUER, Registry, registry_of
from tests.azure.standin.registry_tokens import HOST, RegistryRefused, may, refused
from tests.azure.standin.world import World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

SOURCE = "Azure/azure-rest-api-specs containerregistry data-plane"
CHANGEABLE = dict.fromkeys(("deleteEnabled", "writeEnabled", "readEnabled", "listEnabled"), True)


@dataclass(frozen=True)
class Repository:
    """A repository's files. Layout: distribution's registry/storage/paths.go."""

    registry: Registry
    name: str

    @property
    def _root(self) -> Path:
        return self.registry.folder / "store" / "docker" / "registry" / "v2"

    @property
    def folder(self) -> Path:
        return self._root / "repositories" / self.name

    def tags(self) -> dict[str, str]:
        """The digest of each tag."""
        links = sorted((self.folder / "_manifests" / "tags").glob("*/current/link"))
        return {link.parent.parent.name: link.read_text().strip() for link in links}

    def digests(self) -> Iterator[str]:
        """The digests of all manifests; one that was deleted has lost its link."""
        for link in sorted((self.folder / "_manifests" / "revisions").glob("*/*/link")):
            yield f"{link.parent.parent.name}:{link.parent.name}"

    def manifest(self, digest: str) -> Json:
        """What a manifest says."""
        found: Json = json.loads(self._blob(digest).read_bytes())
        return found

    def time(self, digest: str) -> str:
        changed = self._blob(digest).stat().st_mtime
        return datetime.fromtimestamp(changed, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")

    def described(self, digest: str) -> Json:
        """A manifest as it is listed."""
        manifest, at = self.manifest(digest), self.time(digest)
        config = manifest.get("config") or {}
        shown: dict[str, Any] = {
            "digest": digest,
            "imageSize": sum(layer["size"] for layer in manifest.get("layers", []))
            + int(config.get("size", 0)),
            "createdTime": at,
            "lastUpdateTime": at,
            "mediaType": manifest.get("mediaType", "application/vnd.oci.image.manifest.v1+json"),
            "tags": [tag for tag, its in self.tags().items() if its == digest],
            "changeableAttributes": CHANGEABLE,
        }
        if config:
            image = json.loads(self._blob(config["digest"]).read_bytes())
            shown |= {
                "architecture": image.get("architecture"),
                "os": image.get("os"),
                "configMediaType": config["mediaType"],
            }
        return shown

    def _blob(self, digest: str) -> Path:
        kind, _, text = digest.partition(":")
        return self._root / "blobs" / kind / text[:2] / text / "data"


def repository_of(world: World, request: Request, name: str, action: str) -> Repository:
    """The repository, for a caller whose token allows `action` on it; Refused otherwise.

    A bearer token is one of the registry's; the admin user may come with a password.
    """
    registry = registry_of(world, request.host)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise refused()
    try:
        claims = jwt.decode(
            token,
            registry.key.public_key(),
            algorithms=["RS256"],
            audience=registry.host,
            issuer=ISSUER,
        )
    except jwt.PyJWTError:
        raise refused() from None
    granted = any(
        entry["name"] == name and action in entry["actions"] for entry in claims["access"]
    )
    who = "" if claims["sub"] == "admin" else str(claims["sub"])
    if not granted or not may(world, registry, who, action):
        raise refused(detail=[{"Type": "repository", "Name": name, "Action": action}])
    repository = Repository(registry, name)
    if not any(repository.digests()):
        message = "repository name not known to registry"
        raise RegistryRefused(404, "NAME_UNKNOWN", message, {"name": name})
    return repository


def _digest(repository: Repository, reference: str) -> str:
    """The digest of a tag or a digest that is there; Refused (404) if it is not."""
    tags = repository.tags()
    if reference in tags:
        return tags[reference]
    if reference in repository.digests():
        return reference
    if re.fullmatch(r"sha256:[0-9a-f]{64}", reference):
        raise RegistryRefused(404, "MANIFEST_UNKNOWN", f"manifest {reference} is not found")
    message = "the specified tag does not exist"
    raise RegistryRefused(404, "TAG_UNKNOWN", message, {"name": repository.name, "tag": reference})


def _tag(repository: Repository, tag: str) -> Json:
    digest = _digest(repository, tag)
    at = repository.time(digest)
    return {
        "name": tag,
        "digest": digest,
        "createdTime": at,
        "lastUpdateTime": at,
        "signed": False,
        "changeableAttributes": CHANGEABLE,
    }


def _of(repository: Repository, **more: Any) -> Json:
    return {"registry": repository.registry.host, "imageName": repository.name, **more}


def add(parts: Parts) -> None:
    """Routes of /acr/v1."""
    routes = parts.routes

    @routes.add(HOST, "GET DELETE", "/acr/v1/{name...}/_tags/{tag}", source=SOURCE)
    def tag_route(world: World, request: Request, server: str, name: str, tag: str) -> Answer:
        if request.method == "DELETE":
            repository = repository_of(world, request, name, "delete")
            _digest(repository, tag)
            shutil.rmtree(repository.folder / "_manifests" / "tags" / tag)
            return Answer(202)
        repository = repository_of(world, request, name, "metadata_read")
        return Answer(200, _of(repository, tag=_tag(repository, tag)))

    @routes.add(HOST, "GET", "/acr/v1/{name...}/_tags", source=SOURCE)
    def tags(world: World, request: Request, server: str, name: str) -> Json:
        repository = repository_of(world, request, name, "metadata_read")
        shown = [_tag(repository, tag) for tag in repository.tags()]
        if request.query.get("orderby") == "timedesc":
            shown.sort(key=lambda tag: str(tag["lastUpdateTime"]), reverse=True)
        # az takes a page of n for the last one: there is no Link header.
        return _of(repository, tags=shown[: int(request.query.get("n", "100"))])

    @routes.add(HOST, "GET", "/acr/v1/{name...}/_manifests/{digest}", source=SOURCE)
    def manifest(world: World, request: Request, server: str, name: str, digest: str) -> Json:
        repository = repository_of(world, request, name, "metadata_read")
        return _of(repository, manifest=repository.described(_digest(repository, digest)))

    @routes.add(HOST, "GET", "/acr/v1/{name...}/_manifests", source=SOURCE)
    def manifests(world: World, request: Request, server: str, name: str) -> Json:
        repository = repository_of(world, request, name, "metadata_read")
        shown = [repository.described(digest) for digest in repository.digests()]
        if request.query.get("orderby") == "timedesc":
            shown.sort(key=lambda each: str(each["lastUpdateTime"]), reverse=True)
        return _of(repository, manifests=shown[: int(request.query.get("n", "100"))])

    @routes.add(HOST, "GET DELETE", "/acr/v1/{name...}", source=SOURCE)
    def repository_route(world: World, request: Request, server: str, name: str) -> Answer:
        if request.method == "DELETE":
            repository = repository_of(world, request, name, "delete")
            gone = {
                "manifestsDeleted": [*repository.digests()],
                "tagsDeleted": [*repository.tags()],
            }
            shutil.rmtree(repository.folder)
            return Answer(202, gone)
        repository = repository_of(world, request, name, "metadata_read")
        times = [repository.time(digest) for digest in repository.digests()]
        return Answer(
            200,
            _of(
                repository,
                createdTime=min(times),
                lastUpdateTime=max(times),
                manifestCount=len(times),
                tagCount=len(repository.tags()),
                changeableAttributes={**CHANGEABLE, "teleportEnabled": False},
            ),
        )
