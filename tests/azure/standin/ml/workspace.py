"""A workspace's data plane: what it holds, who may ask, and how its routes are declared.

The host is `{region}.api.azureml.ms`; paths are `/{service}/{ARM id of the workspace}/...` without an
api-version, as in azureml-core's `_restclient/operations`. Their sources are those files and are named
there; what a service answers beyond its models' fields is assumed.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.azure.standin.access import allowed, refused
from tests.azure.standin.directory import check_token
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.ml.blobs import Account, Blobs
from tests.azure.standin.world import TENANT, World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

TYPE = "Microsoft.MachineLearningServices/workspaces"
HOST = "{region}.api.azureml.ms"
#: Submitted runs are cancelled at a host of their own, as their `cancelUri` says.
EXPERIMENTS = "{region}.experiments.azureml.net"
WS = f"/subscriptions/{{s}}/resourceGroups/{{g}}/providers/{TYPE}/{{w}}"
#: The container of the workspace's artifacts, snapshots and logs.
ARTIFACTS = "azureml"
SLOW = "run history is slow"
#: What each service's calls are done to.
#: Source: Azure resource provider operations, Microsoft.MachineLearningServices.
THINGS = {
    "history": "experiments/runs",
    "execution": "experiments/runs",
    "metric": "metrics",
    "artifact": "experiments/runs",
    "content": "snapshots",
    "modelmanagement": "models",
    "environment": "environments",
    "datastore": "datastores",
    "dataset": "datasets/registered",
    "data": "datasets/registered",
    "credential": "datastores",
    "pipelines": "endpoints/pipelines",
    "rp": "computes",
}
#: Ends of paths that are POSTed to and only ask.
ASKING = (":query", "/list", "/full", ":getbatch", "/Status", "/StatusCode")


@dataclass
class Workspace:
    """What one workspace holds; all of it goes with the workspace."""

    world: World
    id: str
    name: str
    region: str
    workspace_id: str
    storage_id: str
    blobs: Blobs = field(repr=False)
    experiments: dict[str, Json] = field(default_factory=dict)
    #: Runs by id; `_experiment` in each is its experiment's name, for us alone.
    runs: dict[str, Json] = field(default_factory=dict)
    #: By "origin/container/path".
    artifacts: dict[str, Json] = field(default_factory=dict)
    metrics: dict[str, dict[str, Json]] = field(default_factory=dict)
    assets: dict[str, Json] = field(default_factory=dict)
    models: dict[str, Json] = field(default_factory=dict)
    model_versions: dict[str, int] = field(default_factory=dict)
    datastores: dict[str, Json] = field(default_factory=dict)
    default_datastore: str = "workspaceblobstore"
    #: What stops a run that executes, by run id.
    stoppers: dict[str, Callable[[], None]] = field(default_factory=dict)
    #: What other modules keep.
    rooms: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://{self.region}.api.azureml.ms"

    @property
    def account(self) -> Account:
        """The workspace's own storage."""
        return self.blobs.account(self.storage_id)


class Plane:
    """The data planes of all workspaces, and the way to add a route to them."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.world = parts, parts.world
        self.blobs = Blobs(parts.world)
        self._kept: dict[str, Workspace] = {}
        self._run_tokens: dict[str, tuple[str, str]] = {}
        parts.world.closing.append(self._stop)
        parts.world.faults.declare(SLOW, "run history answers two seconds late")

    def _stop(self) -> None:
        """End what still executes, and wait a moment for it."""
        at_work = [stop for kept in self._kept.values() for stop in list(kept.stoppers.values())]
        for stop in at_work:
            stop()
        if at_work:
            time.sleep(1)

    def workspace(self, workspace_id: str) -> Workspace:
        """The data plane of the ARM resource; Refused as the service does if that is gone."""
        key = workspace_id.lower()
        resource = self.world.resources.get(key)
        if resource is None:
            gone = self._kept.pop(key, None)
            for stop in list(gone.stoppers.values()) if gone else ():
                stop()
            raise user_error(404, f"Workspace {key.rsplit('/', 1)[-1]} was not found.", "NotFound")
        properties = resource["properties"]
        kept = self._kept.get(key)
        if kept is None or kept.workspace_id != properties.get("workspaceId", kept.workspace_id):
            kept = self._kept[key] = Workspace(
                world=self.world,
                id=str(resource["id"]),
                name=str(resource["name"]),
                region=str(resource["location"]).replace(" ", "").lower(),
                workspace_id=properties.get("workspaceId") or str(uuid.uuid4()),
                storage_id=str(properties["storageAccount"]),
                blobs=self.blobs,
            )
        return kept

    def add(
        self,
        service: str,
        methods: str,
        path: str,
        *,
        source: str,
        slow: bool = False,
        host: str = HOST,
    ) -> Callable[[Handler], Handler]:
        """Decorator: answer at `/{service}{workspace}{path}`; the handler's first argument is the Workspace.

        A `slow` handler is called without the world's lock.
        """

        def keep(handler: Handler) -> Handler:
            @self.parts.routes.add(host, methods, f"/{service}{WS}{path}", source=source, slow=True)
            @functools.wraps(handler)
            def answer(
                world: World, request: Request, *, region: str, s: str, g: str, w: str, **names: str
            ) -> Answer | Json | list[Any]:
                if service.startswith("history") and world.faults.has(SLOW):
                    time.sleep(2)
                with world.lock:
                    arm = f"/subscriptions/{s}/resourceGroups/{g}/providers/{TYPE}/{w}"
                    self.admit(request, arm, service)
                    workspace = self.workspace(arm)
                    if region != workspace.region:
                        raise user_error(404, f"Workspace {w} is not in {region}.", "NotFound")
                    if not slow:
                        return handler(workspace, request, **names)
                return handler(workspace, request, **names)

            return handler

        return keep

    def admit(self, request: Request, workspace_id: str, service: str) -> None:
        """Who asks has a token that holds: an ARM token and a role, or that of a run of this workspace."""
        claims = request.claims
        if claims.get("iss") != "azureml":
            who = check_token(self.world, request)
            asks = request.method == "GET" or request.path.endswith(ASKING)
            thing = THINGS[service.partition("/")[0]]
            action = f"{TYPE}/{thing}/{'read' if asks else 'write'}"
            if not allowed(self.world, who.object_id, action, workspace_id):
                raise refused(who, action, workspace_id)
            return
        token = request.headers["authorization"].partition(" ")[2]
        kept = self._run_tokens.get(token)
        if kept is None or kept[0] != workspace_id.lower():
            raise unauthorized("The run's token is not valid for this workspace.")
        if float(claims["exp"]) < time.time():
            raise unauthorized("The run's token has expired.")

    def run_token(self, workspace: Workspace, run_id: str, seconds: int = 48 * 3600) -> str:
        """A token that a run's own code uses; it is good for the data plane of its workspace only."""
        claims = {
            "iss": "azureml",
            "exp": int(time.time()) + seconds,
            "role": "Contributor",
            "scope": workspace.id,
            "runid": run_id,
            "tid": TENANT,
            "jti": secrets.token_hex(8),
        }
        parts = [{"alg": "RS256", "typ": "JWT"}, claims]
        text = [
            base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts
        ]
        token = ".".join([*text, secrets.token_urlsafe(24)])
        self._run_tokens[token] = (workspace.id.lower(), run_id)
        return token


Handler = Callable[..., "Answer | Json | list[Any]"]


def user_error(status: int, message: str, inner: str = "BadArgument") -> Refused:
    """The data plane's refusal; its `code` is UserError, the reason stands in the message.

    Source: azureml-core `_restclient/models/error_response.py` and the error bodies in the SDK's docs.
    """
    return Refused(status, "UserError", message, details=[{"code": inner, "message": message}])


def unauthorized(message: str) -> Refused:
    return Refused(
        401, "UserError", message, details=[{"code": "AuthorizationError", "message": message}]
    )


def new_id() -> str:
    return str(uuid.uuid4())


def stamp() -> str:
    """The present as the data plane writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def page(
    request: Request, items: list[Json], size: int, link: Mapping[str, str] | None = None
) -> Json:
    """A page of items, with a `nextLink` where there are more; `$skipToken` goes on."""
    start = int(request.query.get("$skipToken") or 0)
    more = start + size < len(items)
    answer: Json = {"value": items[start : start + size]}
    if more:
        rest = re.sub(r"(^|&)\$?(%24)?skipToken=[^&]*", "", request.raw_query)
        answer["nextLink"] = f"{request.url}?{rest}&$skipToken={start + size}"
        answer["continuationToken"] = str(start + size)
    return {**answer, **(link or {})}
