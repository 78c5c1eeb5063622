"""Environments: definitions by name and version, and the images they stand for.

A definition that equals the latest keeps its version; another one is the next version.
"""

from __future__ import annotations

import time
from typing import Any

from tests.azure.standin.messages import Answer, Json, Request
from tests.azure.standin.ml.workspace import Plane, Workspace, new_id, page, user_error

SOURCE = "azureml-core _restclient/environment_client.py"
SERVICES = ("environment/v1.0", "environment/v2.0")
#: Seconds an image's build takes; it builds nothing where the base image is all there is.
BUILD_SECONDS = 1.0
KEYS = {
    "name",
    "python",
    "docker",
    "spark",
    "r",
    "environmentVariables",
    "inferencingStackVersion",
    "version",
    "databricks",
    "assetId",
}


def versions(workspace: Workspace, name: str) -> dict[str, Json]:
    """The versions of an environment, the oldest first; {} if there are none."""
    kept: dict[str, dict[str, Json]] = workspace.rooms.setdefault("environments", {})
    return kept.setdefault(name, {})


def find(workspace: Workspace, name: str, version: str | None = None) -> Json:
    """A version, else the latest; Refused (404) if there is none."""
    known = versions(workspace, name)
    if not known or (version is not None and version not in known):
        # The text is Azure's: https://github.com/Azure/azure-sdk-for-python/issues/38594
        said = f"No environment exists for name: {name}, version: {version or ''}, label: "
        raise user_error(404, said, "NotFound")
    return known[version if version is not None else list(known)[-1]]


def image(workspace: Workspace, environment: Json) -> str:
    """The image a definition's runs have: its base image, with its registry's address."""
    docker = environment.get("docker") or {}
    base = str(docker.get("baseImage") or "")
    address = (docker.get("baseImageRegistry") or {}).get("address")
    return f"{address}/{base}" if address and base else base


def definition(environment: Any) -> Json:
    """A definition with its keys as the service shows them; Refused (400) if it is none."""
    if not isinstance(environment, dict):
        raise user_error(400, "The environment definition is missing.")
    found = {key[:1].lower() + key[1:]: value for key, value in environment.items()}
    unknown = set(found) - KEYS
    if unknown:
        raise user_error(400, f"Unknown members of an environment: {', '.join(sorted(unknown))}")
    docker = found.get("docker") or {}
    if docker.get("baseImage") and docker.get("baseDockerfile"):
        raise user_error(400, "Only one of baseImage and baseDockerfile may be given.")
    return found


def register(workspace: Workspace, name: str, body: Json, version: str | None = None) -> Json:
    """The version that holds this definition: the one there is, else the next."""
    if name.lower().startswith(("microsoft", "azureml")):
        raise user_error(400, f"Environment name {name} is reserved.")
    made = {**definition(body), "name": name}
    known = versions(workspace, name)
    same = {k: v for k, v in made.items() if k != "version"}
    wanted = version if version not in (None, "None") else None
    latest = known.get(wanted) if wanted else next(iter(reversed(known.values())), None)
    if latest is not None and {k: v for k, v in latest.items() if k != "version"} == same:
        return latest
    if wanted in known:
        raise user_error(409, f"Environment {name} version {wanted} already exists.", "Conflict")
    number = wanted or str(1 + max((int(v) for v in known if v.isdigit()), default=0))
    known[number] = {**made, "version": number}
    return known[number]


def add(plane: Plane) -> None:
    for service in SERVICES:

        @plane.add(service, "GET", "/environments/", source=SOURCE)
        @plane.add(service, "GET", "/environments", source=SOURCE)
        def listed(workspace: Workspace, request: Request) -> Json:
            names = workspace.rooms.setdefault("environments", {})
            return page(request, [find(workspace, name) for name in names if names[name]], 1000)

        @plane.add(service, "GET PUT", "/environments/{name}", source=SOURCE)
        def latest(workspace: Workspace, request: Request, name: str) -> Json:
            if request.method == "PUT":
                return register(workspace, name, request.mapping())
            return find(workspace, name)

        @plane.add(service, "GET PUT", "/environments/{name}/versions/{version}", source=SOURCE)
        def one(workspace: Workspace, request: Request, name: str, version: str) -> Json:
            if request.method == "PUT":
                return register(workspace, name, request.mapping(), version)
            return find(workspace, name, version)

        for at in ("/environments/{name}", "/environments/{name}/versions/{version}"):

            @plane.add(service, "GET", f"{at}/image", source=SOURCE)
            def details(
                workspace: Workspace, request: Request, name: str, version: str | None = None
            ) -> Json:
                return _details(workspace, find(workspace, name, version))

            @plane.add(service, "POST", f"{at}/image", source=SOURCE)
            def build(
                workspace: Workspace, request: Request, name: str, version: str | None = None
            ) -> Answer:
                find(workspace, name, version)
                operations = workspace.rooms.setdefault("environment builds", {})
                key = new_id()
                operations[key] = time.monotonic() + BUILD_SECONDS
                location = f"{workspace.url}/environment/v1.0{workspace.id}/operations/{key}"
                return Answer(202, {"location": location, "id": key})

        @plane.add(service, "GET", "/operations/{key}", source=SOURCE + "; the path is assumed")
        def operation(workspace: Workspace, request: Request, key: str) -> Json:
            done = workspace.rooms.get("environment builds", {}).get(key)
            if done is None:
                raise user_error(404, f"Operation {key} was not found.", "NotFound")
            status = "Succeeded" if time.monotonic() > done else "Running"
            return {"status": status, "environmentOperationStatus": status, "logUrl": None}


def _details(workspace: Workspace, environment: Json) -> Json:
    whole = (environment.get("python") or {}).get("userManagedDependencies", False)
    address, _, name = image(workspace, environment).partition("/")
    return {
        "imageExistsInRegistry": bool(whole),
        "dockerImage": {"name": name, "registry": {"address": address}},
        "pythonEnvironment": {"interpreterPath": environment["python"].get("interpreterPath")},
        "vulnerabilityFindings": {"patchableVulnerabilitiesFound": False},
        "ingredients": {"dockerfile": None, "condaSpecification": None},
    }
