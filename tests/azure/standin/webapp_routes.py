"""What may be asked of an app beside its resource: settings, configuration, stop and start, swaps.

Sources: REST spec web/resource-manager/Microsoft.Web (WebApps), azure-cli recordings appservice/*.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.azure.standin import generic, operations
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.routes import ARM
from tests.azure.standin.shapes import FLAG, SERVER, TEXT, Map, Optional, check_shape
from tests.azure.standin.taken import taken
from tests.azure.standin.webapp import (
    PLAN,
    SITE,
    SPEC,
    VERSIONS,
    app_of,
    apps,
    change,
    check_image,
    sticky,
)
from tests.azure.standin.webapp_app import App, swap
from tests.azure.standin.webapp_shapes import CONFIG, OWN
from tests.azure.standin.world import World, new_id

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

BASE = "/subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.Web/sites/{site}"
NAMES = re.compile(r"[A-Za-z_0-9][\w.:-]*")
#: What swaps say. Source: az's users, e.g. Azure/azure-cli issues on "webapp deployment slot swap".
NO_PING = (
    "Cannot swap slots for site '{site}' because the '{slot}' slot did not respond to http ping."
)

Handler = Callable[[World, Request, str], "Answer | Json | list[Any]"]


def _id(request: Request) -> str:
    """The id of the site or slot that the request's path begins with."""
    found = re.match(r".*?/sites/[^/]+(?:/slots/[^/]+)?", request.path, re.IGNORECASE)
    assert found is not None
    return found[0]


def _site_id(resource_id: str) -> str:
    return "/".join(resource_id.split("/")[:9])


def _wrapped(resource_id: str, name: str, properties: Any) -> Json:
    """A child resource as these calls answer it."""
    return {
        "id": f"{resource_id}/config/{name}",
        "name": name,
        "type": f"{SITE}/config",
        "location": "",
        "properties": properties,
    }


def publishing(world: World, resource_id: str) -> tuple[str, str]:
    """The name and password for the scm host of an app or slot."""
    key = (resource_id.lower(), "publishing")
    world.keys.setdefault(key, secrets.token_urlsafe(45))
    return "$" + app_of(world, resource_id).site, world.keys[key]


def basic_allowed(world: World, resource_id: str) -> bool:
    """Whether the scm host takes that password; it does until it is told otherwise."""
    kept: dict[str, bool] = world.rooms.setdefault("scm passwords", {})
    return kept.get(resource_id.lower(), True)


def _web(app: App, resource_id: str) -> Json:
    config = {**app.config, "publishingUsername": "$" + app.site, "appSettings": None}
    return {**_wrapped(resource_id, "web", config), "name": app.site.rpartition("__")[2]}


def _settings(world: World, request: Request, resource_id: str) -> Json:
    app = app_of(world, resource_id)
    body = request.mapping()
    check_shape(body, {**OWN, "kind": SERVER, "location": SERVER, "properties": Map(TEXT)}, SITE)
    for name in body["properties"]:
        if not NAMES.fullmatch(name):
            raise Refused(
                400, "BadRequest", f"The parameter name '{name}' of an app setting is invalid."
            )
    change(app, {}, body["properties"])
    return _wrapped(resource_id, "appsettings", dict(app.settings))


def _configure(world: World, request: Request, resource_id: str) -> Json:
    app = app_of(world, resource_id)
    body = request.mapping()
    check_shape(
        body,
        {**OWN, "kind": SERVER, "location": SERVER, "tags": SERVER, "properties": CONFIG},
        SITE,
    )
    config = dict(body["properties"])
    check_image(str(config.get("linuxFxVersion") or ""))
    settings = config.pop("appSettings", None)
    change(app, config, None if settings is None else {s["name"]: s["value"] for s in settings})
    return _web(app, resource_id)


def _sticky(world: World, request: Request, resource_id: str) -> Json:
    names = sticky(world, _site_id(resource_id))
    if request.method == "PUT":
        body = request.mapping()
        lists = {
            "appSettingNames": Optional([TEXT]),
            "connectionStringNames": Optional([TEXT]),
            "azureStorageConfigNames": Optional([TEXT]),
        }
        check_shape(
            body,
            {**OWN, "kind": SERVER, "location": SERVER, "tags": SERVER, "properties": lists},
            SITE,
        )
        names.clear()
        names |= set(body["properties"].get("appSettingNames") or [])
    return _wrapped(
        _site_id(resource_id),
        "slotConfigNames",
        {
            "connectionStringNames": None,
            "appSettingNames": sorted(names) or None,
            "azureStorageConfigNames": None,
        },
    )


def _restart(world: World, request: Request, resource_id: str) -> Answer:
    app = app_of(world, resource_id)
    if not app.stopped and app.image:
        app.start()
    return Answer(200)


def _stop(world: World, request: Request, resource_id: str) -> Answer:
    app_of(world, resource_id).stop()
    return Answer(200)


def _start(world: World, request: Request, resource_id: str) -> Answer:
    app = app_of(world, resource_id)
    if app.stopped and app.image:
        app.start()
    app.stopped = False
    return Answer(200)


def _container_logs(world: World, request: Request, resource_id: str) -> Answer:
    app = app_of(world, resource_id)
    text = "\n".join(app.platform) + "\n" + app.output()
    return Answer(200, text.encode(), {"Content-Type": "application/octet-stream"})


def _credentials(world: World, request: Request, resource_id: str) -> Json:
    user, password = publishing(world, resource_id)
    host = app_of(world, resource_id).host.replace(".", ".scm.", 1)
    return {
        "id": f"{resource_id}/publishingcredentials/{user}",
        "name": user,
        "type": f"{SITE}/publishingcredentials",
        "properties": {
            "name": None,
            "publishingUserName": user,
            "publishingPassword": password,
            "publishingPasswordHash": None,
            "publishingPasswordHashSalt": None,
            "metadata": None,
            "scmUri": f"https://{user}:{password}@{host}",
        },
    }


def _profile(world: World, request: Request, resource_id: str) -> Answer:
    user, password = publishing(world, resource_id)
    app = app_of(world, resource_id)
    text = (
        f'<publishData><publishProfile profileName="{app.site} - FTP" publishMethod="FTP" '
        f'publishUrl="ftps://waws-prod-stand-in.ftp.azurewebsites.windows.net/site/wwwroot" '
        f'ftpPassiveMode="True" userName="{app.site}\\{user}" userPWD="{password}" '
        f'destinationAppUrl="https://{app.host}"><databases /></publishProfile></publishData>'
    )
    return Answer(200, text.encode(), {"Content-Type": "application/xml"})


def _policy(world: World, request: Request, resource_id: str) -> Json:
    name = request.path.rpartition("/")[2].lower()
    kept: dict[str, bool] = world.rooms.setdefault("scm passwords", {})
    app_of(world, resource_id)
    if request.method == "PUT":
        body = request.mapping()
        check_shape(body, {**OWN, "kind": SERVER, "properties": {"allow": FLAG}}, SITE)
        if name == "scm":
            kept[resource_id.lower()] = body["properties"]["allow"]
    return {
        "id": f"{resource_id}/basicPublishingCredentialsPolicies/{name}",
        "name": name,
        "type": f"{SITE}/basicPublishingCredentialsPolicies",
        "properties": {"allow": kept.get(resource_id.lower(), True)},
    }


def _logs_config(world: World, request: Request, resource_id: str) -> Json:
    """Diagnostics: what was set is shown; containers' logs are always kept here."""
    kept: dict[str, Json] = world.rooms.setdefault("app logs", {})
    app_of(world, resource_id)
    if request.method == "PUT":
        parts = dict.fromkeys(
            ("applicationLogs", "httpLogs", "failedRequestsTracing", "detailedErrorMessages"),
            SERVER,
        )
        body = request.mapping()
        check_shape(body, {**OWN, "kind": SERVER, "properties": parts}, SITE)
        kept[resource_id.lower()] = body["properties"]
    return _wrapped(resource_id, "logs", kept.get(resource_id.lower(), {}))


def _references(world: World, request: Request, resource_id: str) -> Json:
    app = app_of(world, resource_id)
    found = {n: app.resolve(v)[1] for n, v in app.settings.items() if v.startswith("@Microsoft.K")}
    return {"value": [_wrapped(resource_id, name, status) for name, status in found.items()]}


def _swap(world: World, request: Request, resource_id: str) -> Answer:
    body = request.mapping()
    check_shape(body, {"targetSlot": TEXT, "preserveVnet": FLAG}, "CsmSlotEntity")
    site = _site_id(resource_id)
    target = body["targetSlot"]
    other_id = site if target.lower() == "production" else f"{site}/slots/{target}"
    source, other = app_of(world, resource_id), app_of(world, other_id)
    if source is other:
        raise Refused(409, "Conflict", "Source and target slots must differ.")
    for app in (source, other):
        if app.stopped:
            name = app.site.partition("__")[2] or "production"
            raise Refused(
                409,
                "Conflict",
                f"Cannot swap site slots for site '{source.site.partition('__')[0]}' because the '{name}' "
                "slot is in stopped state.",
            )
    busy: set[str] = world.rooms.setdefault("swapping", set())
    if site.lower() in busy:
        raise Refused(
            409,
            "Conflict",
            f"Cannot modify this site because another operation is in progress. Id: {new_id()}",
        )
    busy.add(site.lower())
    operation = operations.begin_open(world)

    def work() -> None:
        failed: Refused | None = None
        try:
            _swap_now(world, site, source, other)
        except Refused as refused:
            failed = refused
        with world.lock:
            busy.discard(site.lower())
        operations.settle(operation, failed)

    threading.Thread(target=work, daemon=True).start()
    return Answer(202, None, operations.location_headers(operation, request.api_version))


def _swap_now(world: World, site: str, source: App, other: App) -> None:
    """Warm the source with the target's sticky settings, then exchange.

    Source: learn.microsoft.com/azure/app-service/deploy-staging-slots, "What happens during a swap".
    """
    names = sticky(world, site)
    with world.lock:
        kept = {n: v for n, v in other.settings.items() if n in names}
        own = {n: v for n, v in source.settings.items() if n in names}
        if kept != own:
            rest = {n: v for n, v in source.settings.items() if n not in names}
            change(source, {}, {**rest, **kept})
    source.settled.wait(240)
    with world.lock:
        slot = source.site.partition("__")[2] or "production"
        if not _is_warm(source) or world.faults.has("slot swap fails"):
            if kept != own:
                rest = {n: v for n, v in source.settings.items() if n not in names}
                change(source, {}, {**rest, **own})
            name = source.site.partition("__")[0]
            raise Refused(409, "Conflict", NO_PING.format(site=name, slot=slot))
        if kept != own:
            rest = {n: v for n, v in source.settings.items() if n not in names}
            source.settings = {**rest, **own}
        swap(source, other, names)


def _is_warm(app: App) -> bool:
    """Whether a slot answers as its settings want it before it is swapped in; any answer will do else."""
    if app.box is None:
        return False
    path = app.settings.get("WEBSITE_SWAP_WARMUP_PING_PATH")
    wanted = app.settings.get("WEBSITE_SWAP_WARMUP_PING_STATUSES", "")
    if path is None:
        return True
    status = app.box.answers(app.port_of(app.box), path, timeout=10)
    return status is not None and (not wanted or str(status) in wanted.split(","))


def add(parts: Parts) -> None:
    """The routes, each for sites and for slots."""
    world, routes, types = parts.world, parts.routes, parts.types
    world.faults.declare("slot swap fails", "a slot does not answer while it is swapped")

    def both(methods: str, path: str, handler: Handler) -> None:
        def one(world: World, request: Request, **names: str) -> Answer | Json | list[Any]:
            return handler(world, request, _id(request))

        for base in (BASE, BASE + "/slots/{slot}"):
            routes.add(ARM, methods, base + path, source=SPEC, versions=VERSIONS)(one)

    both("PUT", "/config/appsettings", _settings)
    both(
        "POST",
        "/config/appsettings/list",
        lambda world, request, at: _wrapped(at, "appsettings", dict(app_of(world, at).settings)),
    )
    both("GET", "/config/web", lambda world, request, at: _web(app_of(world, at), at))
    both("PUT PATCH", "/config/web", _configure)
    both("GET PUT", "/config/slotConfigNames", _sticky)
    both("GET PUT", "/config/logs", _logs_config)
    both("GET", "/config/configreferences/appsettings", _references)
    both("POST", "/config/publishingcredentials/list", _credentials)
    both("GET PUT", "/basicPublishingCredentialsPolicies/scm", _policy)
    both("GET PUT", "/basicPublishingCredentialsPolicies/ftp", _policy)
    both("POST", "/publishxml", _profile)
    both("POST", "/restart", _restart)
    both("POST", "/stop", _stop)
    both("POST", "/start", _start)
    both("POST", "/containerlogs", _container_logs)
    both("POST", "/slotsswap", _swap)

    def put(world: World, request: Request, **names: str) -> Answer:
        # Always 200: its clients take no 201 for these.
        made = generic.put(world, types, request.path, request.mapping(), request.api_version)
        return Answer(200, generic.shown(world, types, made))

    group = "/subscriptions/{s}/resourceGroups/{g}/providers/"
    for path in (f"{group}{PLAN}/{{name}}", f"{group}{SITE}/{{name}}", BASE + "/slots/{slot}"):
        routes.add(
            ARM, "PUT", path, source="recording test_download_linux_web_log", versions=VERSIONS
        )(put)

    @routes.add(
        ARM,
        "POST",
        "/subscriptions/{s}/providers/Microsoft.Web/checknameavailability",
        source="REST spec web: CheckNameAvailability; recording test_webapp_quick_create",
        versions=VERSIONS,
    )
    def check_name(world: World, request: Request, s: str) -> Json:
        body = request.mapping()
        check_shape(
            body,
            {"name": TEXT, "type": TEXT, "isFqdn": Optional(FLAG)},
            "ResourceNameAvailabilityRequest",
        )
        host = f"{body['name'].lower()}.azurewebsites.net"
        known = any(app.host == host for app in apps(world).values())
        if known or taken(world, SITE, body["name"]):
            message = (
                f"Hostname '{body['name'].lower()}' already exists. Please select a different name."
            )
            return {"nameAvailable": False, "reason": "AlreadyExists", "message": message}
        return {"nameAvailable": True, "reason": "", "message": ""}
