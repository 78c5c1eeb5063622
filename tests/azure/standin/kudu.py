"""The scm host of an app: its logs, for `az webapp log`.

Source: https://github.com/projectkudu/kudu/wiki/REST-API; recording test_download_linux_web_log.
"""

from __future__ import annotations

import base64
import io
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.azure.standin.access import allowed
from tests.azure.standin.directory import ARM_AUDIENCES, check_token
from tests.azure.standin.messages import Answer, Request
from tests.azure.standin.webapp import SITE, apps
from tests.azure.standin.webapp_app import App, Page
from tests.azure.standin.webapp_routes import basic_allowed, publishing
from tests.azure.standin.world import World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

HOST = "{site}.scm.azurewebsites.net"
AUDIENCES = (*ARM_AUDIENCES, "https://appservice.azure.com", "https://appservice.azure.com/")
SOURCE = "projectkudu/kudu wiki REST-API"


def _app(world: World, request: Request, site: str) -> App:
    """The app whose host it is, after its password or token was looked at."""
    host = f"{site.lower()}.azurewebsites.net"
    app = next((each for each in apps(world).values() if each.host == host), None)
    if app is None:
        raise Page(404, "404 Web Site not found", "The resource was not found.")
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        user, _, password = base64.b64decode(value).decode().partition(":")
        if not basic_allowed(world, app.id) or (user, password) != publishing(world, app.id):
            raise Page(
                401, "401 Unauthorized", "You do not have permission to view this directory."
            )
        return app
    who = check_token(world, request, AUDIENCES)
    if not allowed(world, who.object_id, f"{SITE}/publish/Action", app.id):
        raise Page(403, "403 Forbidden", "You do not have permission to view this directory.")
    return app


def _files(app: App) -> dict[str, str]:
    day = datetime.now(UTC).strftime("%Y_%m_%d")
    return {
        f"LogFiles/{day}_lw0sdlwk0_docker.log": "\n".join(app.platform) + "\n",
        f"LogFiles/{day}_lw0sdlwk0_default_docker.log": app.output(),
    }


def _zip(app: App) -> Answer:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _files(app).items():
            archive.writestr(name, text)
    return Answer(200, stream.getvalue(), {"Content-Type": "application/zip"})


def add(parts: Parts) -> None:
    """The log routes."""
    routes = parts.routes

    @routes.add(HOST, "GET", "/dump", source=SOURCE)
    def dump(world: World, request: Request, site: str) -> Answer:
        return _zip(_app(world, request, site))

    @routes.add(HOST, "GET", "/api/logs/docker/zip", source=SOURCE)
    def docker_zip(world: World, request: Request, site: str) -> Answer:
        return _zip(_app(world, request, site))

    @routes.add(HOST, "GET", "/api/logs/docker", source=SOURCE)
    def docker(world: World, request: Request, site: str) -> Answer:
        app = _app(world, request, site)
        found = [
            {
                "machineName": "lw0sdlwk0",
                "lastUpdated": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "size": len(text),
                "href": f"https://{request.host}/api/vfs/{name}",
                "path": f"/home/{name}",
            }
            for name, text in _files(app).items()
        ]
        return Answer(200, found)

    @routes.add(HOST, "GET", "/api/vfs/{path...}", source=SOURCE)
    def file(world: World, request: Request, site: str, path: str) -> Answer:
        found = _files(_app(world, request, site)).get(path)
        if found is None:
            return Answer(404, {"Message": f"'/home/{path}' not found."})
        return Answer(200, found)

    # Azure's stream goes on; this one ends with what there is, which az takes for an end.
    @routes.add(HOST, "GET", "/logstream", source="az's client code; *assumed* to end")
    def stream(world: World, request: Request, site: str) -> Answer:
        return Answer(200, _app(world, request, site).output())
