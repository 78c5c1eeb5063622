"""App Service: plans, sites and slots of Linux containers.

Sources: REST specs web/resource-manager (WebApps, AppServicePlans) for the shapes; azure-cli
recordings appservice/test_download_linux_web_log, test_acr_integration for the answers. Host names
are global; only a plan of the tiers Standard and Premium has slots.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

from tests.azure.standin import identities
from tests.azure.standin.messages import Json, Refused
from tests.azure.standin.resources import ResourceId, ResourceType, find, of_type
from tests.azure.standin.shapes import check_shape
from tests.azure.standin.taken import taken
from tests.azure.standin.webapp_app import App
from tests.azure.standin.webapp_shapes import DEFAULTS, PLAN_SHAPE, SITE_SHAPE
from tests.azure.standin.world import REGIONS, World, now

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

PLAN = "Microsoft.Web/serverfarms"
SITE = "Microsoft.Web/sites"
SLOT = "Microsoft.Web/sites/slots"
VERSIONS = (
    "2018-02-01",
    "2021-02-01",
    "2022-03-01",
    "2022-09-01",
    "2023-01-01",
    "2023-12-01",
    "2024-04-01",
    "2024-11-01",
    "2025-03-01",
    "2025-05-01",
)
SPEC = "REST spec web/resource-manager/Microsoft.Web"
#: SKUs by tier; how many slots an app may have in each.
TIERS = {
    "F1": "Free",
    "B1": "Basic",
    "B2": "Basic",
    "B3": "Basic",
    "S1": "Standard",
    "S2": "Standard",
    "S3": "Standard",
    **{f"P{size}v3": "PremiumV3" for size in (0, 1, 2, 3)},
    **{f"P{size}v4": "PremiumV4" for size in (0, 1, 2, 3)},
}
SLOTS = {"Standard": 5, "PremiumV3": 20, "PremiumV4": 20}


def apps(world: World) -> dict[str, App]:
    """Apps and slots at work, by resource key."""
    found: dict[str, App] = world.rooms.setdefault("apps", {})
    return found


def app_of(world: World, resource_id: str) -> App:
    """The app of a site or slot; Refused (404) if it is not there."""
    found = apps(world).get(resource_id.lower())
    if found is None:
        find(world, resource_id)
        raise AssertionError("a site without an app")
    return found


def sticky(world: World, site_id: str) -> set[str]:
    """Names of app settings that stay with their slot."""
    kept: dict[str, set[str]] = world.rooms.setdefault("sticky settings", {})
    return kept.setdefault(site_id.lower(), set())


def _check_plan(world: World, target: ResourceId, body: Json) -> None:
    if not re.fullmatch(r"[\w-]{1,60}", target.name):
        raise Refused(400, "BadRequest", f"The plan name '{target.name}' is invalid.")
    check_shape(body, PLAN_SHAPE, PLAN)
    sku = body["sku"]["name"]
    if sku.lower() not in {known.lower() for known in TIERS}:
        raise Refused(400, "BadRequest", f"The SKU '{sku}' is not valid for an App Service plan.")
    before = world.resources.get(target.key)
    if before is None or before["sku"]["name"].lower() != sku.lower():
        _check_quota(world)


def _check_quota(world: World) -> None:
    """Source: MicrosoftDocs/msteams-docs#13495, what a template is told of a plan beyond the quota."""
    if world.faults.has("no App Service quota"):
        raise Refused(
            400,
            "ValidationForResourceFailed",
            "Validation failed for a resource. Check 'Error.Details[0]' for more information.",
            details=[
                {
                    "code": "SubscriptionIsOverQuotaForSku",
                    "message": "Operation cannot be completed without additional quota. \r\nAdditional "
                    "details - Location:  \r\nCurrent Limit (PremiumV3 VMs): 0 \r\nCurrent Usage: 0\r\n"
                    "Amount required for this deployment (PremiumV3 VMs): 1 \r\n(Minimum) New Limit that "
                    "you should request to enable this deployment: 1. ",
                }
            ],
        )


def _put_plan(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    name = next(known for known in TIERS if known.lower() == body["sku"]["name"].lower())
    capacity = int(body["sku"].get("capacity") or 1)
    given = body.get("properties") or {}
    reserved = bool(given.get("reserved", False))
    sku = {
        "name": name,
        "tier": TIERS[name],
        "size": name,
        "family": re.sub(r"\d", "", name, count=1),
        "capacity": capacity,
    }
    return {
        **{k: v for k, v in body.items() if k in ("location", "tags", "identity")},
        "kind": "linux" if reserved else "app",
        "sku": sku,
        "properties": {
            "serverFarmId": 31976,
            "name": target.name,
            "numberOfWorkers": capacity,
            "currentNumberOfWorkers": capacity,
            "status": "Ready",
            "webSpace": f"{target.group}-{REGIONS[body['location']].replace(' ', '')}webspace-Linux",
            "maximumNumberOfWorkers": 30 if name.startswith("P") else 10,
            "planName": "VirtualDedicatedPlan",
            "geoRegion": REGIONS[body["location"]],
            "perSiteScaling": False,
            "elasticScaleEnabled": False,
            "zoneRedundant": False,
            **given,
            "reserved": reserved,
            "resourceGroup": target.group,
            "provisioningState": "Succeeded",
        },
    }


def _show_plan(world: World, resource: Json) -> Json:
    mine = [
        site for site in of_type(world, SITE) if _same(site, "serverFarmId", str(resource["id"]))
    ]
    resource["properties"]["numberOfSites"] = len(mine)
    return resource


def _same(site: Json, name: str, value: str) -> bool:
    return str(site["properties"].get(name, "")).lower() == value.lower()


def _delete_plan(world: World, target: ResourceId, resource: Json) -> None:
    if _show_plan(world, copy.deepcopy(resource))["properties"]["numberOfSites"]:
        raise Refused(
            409,
            "Conflict",
            "Server farm cannot be deleted because it has web app(s) "
            f"{', '.join(s['name'] for s in of_type(world, SITE))} assigned to it.",
        )


def check_image(text: str) -> None:
    """`DOCKER|image`, as linuxFxVersion has it."""
    if text and not re.fullmatch(r"DOCKER\|\S+", text, re.IGNORECASE):
        raise Refused(
            400, "BadRequest", "The parameter LinuxFxVersion has an invalid value."
        )  # verbatim from Azure


def _check_site(world: World, target: ResourceId, body: Json) -> None:
    check_shape(body, SITE_SHAPE, target.type)
    name = target.names[0]
    whole = host_label(target)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,58}[A-Za-z0-9]", name) or len(whole) > 59:
        raise Refused(400, "BadRequest", f"The host name {whole}.azurewebsites.net is invalid.")
    host = f"{whole}.azurewebsites.net"
    others = {app.host for app in apps(world).values() if app.id.lower() != target.key}
    if host in others or taken(world, SITE, whole):
        raise Refused(409, "Conflict", f"Website with given name {name} already exists.")
    config = body["properties"].get("siteConfig") or {}
    check_image(str(config.get("linuxFxVersion") or ""))
    # A template may make the plan itself: what hangs on it is looked at again when the site is made.
    plan = _plan(world, target, body)
    if plan is not None:
        _check_on_plan(world, target, config, plan)


def _check_on_plan(world: World, target: ResourceId, config: Json, plan: Json) -> None:
    """What a plan does not allow."""
    if config.get("linuxFxVersion") and not plan["properties"]["reserved"]:
        raise Refused(400, "BadRequest", "A Linux container needs a plan of Linux workers.")
    tier = plan["sku"]["tier"]
    if len(target.names) > 1:
        site = target.parent or ""
        others = [s for s in of_type(world, SLOT, site + "/") if s["id"].lower() != target.key]
        if len(others) >= SLOTS.get(tier, 0):
            raise Refused(
                409,
                "Conflict",
                "Cannot complete the operation because the site will exceed the number of slots allowed "
                f"for the '{tier}' SKU.",
            )
    if config.get("alwaysOn") and tier == "Free":
        raise Refused(
            409,
            "Conflict",
            "There was a conflict. AlwaysOn cannot be set for this site as the plan does not allow it.",
        )


def _plan_id(world: World, target: ResourceId, body: Json) -> str:
    asked = body["properties"].get("serverFarmId")
    before = world.resources.get(target.key) or world.resources.get((target.parent or "").lower())
    return str(asked or (before or {}).get("properties", {}).get("serverFarmId") or "")


def _plan(world: World, target: ResourceId, body: Json) -> Json | None:
    return world.resources.get(_plan_id(world, target, body).lower())


def _check_reference(target: ResourceId, body: Json) -> None:
    wanted = (body.get("identity") or {}).get("userAssignedIdentities") or {}
    used = body["properties"].get("keyVaultReferenceIdentity") or "SystemAssigned"
    if used != "SystemAssigned" and used.lower() not in {each.lower() for each in wanted}:
        raise Refused(
            400,
            "BadRequest",
            "The identity set for Key Vault references is not one of the site's identities.",
        )


def host_label(target: ResourceId) -> str:
    """<site> or <site>-<slot>, in lower case."""
    return "-".join(target.names).lower()


def _put_site(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    given = body["properties"]
    plan = _plan(world, target, body)
    if plan is None:
        name = _plan_id(world, target, body).rpartition("/")[2]
        raise Refused(404, "NotFound", f"Server farm with name {name} not found.")
    _check_on_plan(world, target, given.get("siteConfig") or {}, plan)
    _check_reference(target, body)
    app = apps(world).get(target.key)
    host = f"{host_label(target)}.azurewebsites.net"
    if app is None:
        app = apps(world)[target.key] = App(world, target.text, host, dict(DEFAULTS))
    config = dict(given.get("siteConfig") or {})
    settings = config.pop("appSettings", None)
    identity = identities.given(
        world, target, body.get("identity") or (before or {}).get("identity")
    )
    app.identities = [each.lower() for each in (identity or {}).get("userAssignedIdentities", {})]
    old = (before or {}).get("properties", {})
    app.vault_identity = str(
        given.get("keyVaultReferenceIdentity") or old.get("keyVaultReferenceIdentity") or ""
    )
    change(app, config, None if settings is None else {s["name"]: s["value"] for s in settings})
    if settings is not None:
        names = sticky(world, "/".join(target.text.split("/")[:9]))
        names |= {s["name"] for s in settings if s.get("slotSetting")}
    scm = f"{host_label(target)}.scm.azurewebsites.net"
    shown = {k: v for k, v in {**old, **given}.items() if k not in ("siteConfig", "enabled")}
    made = {
        **{k: v for k, v in body.items() if k in ("location", "tags")},
        "name": "/".join(target.names),
        "kind": body.get("kind") or (before or {}).get("kind") or "app,linux,container",
        "properties": {
            "httpsOnly": False,
            "clientAffinityEnabled": True,
            "clientCertEnabled": False,
            "publicNetworkAccess": None,
            **shown,
            "name": "/".join(target.names[:1]) if len(target.names) == 1 else host_label(target),
            "hostNames": [host],
            "defaultHostName": host,
            "enabledHostNames": [host, scm],
            "repositorySiteName": target.names[0],
            "webSpace": plan["properties"]["webSpace"],
            "usageState": "Normal",
            "enabled": True,
            "availabilityState": "Normal",
            "hostNameSslStates": [
                {"name": host, "sslState": "Disabled", "hostType": "Standard"},
                {"name": scm, "sslState": "Disabled", "hostType": "Repository"},
            ],
            "serverFarmId": plan["id"],
            "reserved": True,
            "isXenon": False,
            "hyperV": False,
            "sku": plan["sku"]["tier"],
            "lastModifiedTimeUtc": now(),
            "resourceGroup": target.group,
            "slotSwapStatus": old.get("slotSwapStatus"),
            "containerSize": 0,
            "provisioningState": "Succeeded",
        },
    }
    if identity:
        made["identity"] = identity
    return made


def change(app: App, config: Json, settings: dict[str, str] | None) -> None:
    """Change what an app has; it starts again if its container would differ."""
    before = (app.image, app.settings, [app.config.get(n) for n in STARTS])
    app.config = {**app.config, **{k: v for k, v in config.items() if v is not None}}
    if settings is not None and settings != app.settings:
        app.settings = dict(settings)
        app.fetched.clear()
    after = (app.image, app.settings, [app.config.get(n) for n in STARTS])
    if before != after and app.image and not app.stopped:
        app.start()


#: Settings besides the image that make an app start again.
STARTS = ("acrUseManagedIdentityCreds", "acrUserManagedIdentityID", "appCommandLine", "alwaysOn")


def _show_site(world: World, resource: Json) -> Json:
    app = apps(world)[str(resource["id"]).lower()]
    shown = ("linuxFxVersion", "alwaysOn", "acrUseManagedIdentityCreds", "acrUserManagedIdentityID")
    resource["properties"] |= {
        "state": "Stopped" if app.stopped else "Running",
        "siteConfig": {
            "numberOfWorkers": 1,
            **{name: app.config.get(name) for name in shown},
            "http20Enabled": app.config.get("http20Enabled"),
            "appSettings": None,
        },
    }
    return resource


def _delete_site(world: World, target: ResourceId, resource: Json) -> None:
    app = apps(world).pop(target.key, None)
    if app is not None:
        app.remove()


def add(parts: Parts) -> None:
    """The types and the troubles; their operations are in webapp_routes and kudu."""
    faults = parts.world.faults
    faults.declare("web app image cannot be pulled", "an app's registry does not answer")
    faults.declare("web app crashes", "an app's container exits as soon as it starts")
    faults.declare("no App Service quota", "the region gives no plan to the subscription")
    parts.types.add(
        ResourceType(PLAN, VERSIONS, SPEC, _check_plan, _put_plan, _delete_plan, _show_plan)
    )
    for name in (SITE, SLOT):
        parts.types.add(
            ResourceType(name, VERSIONS, SPEC, _check_site, _put_site, _delete_site, _show_site)
        )
