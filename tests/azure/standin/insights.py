"""Log Analytics workspaces and Application Insights.

Source: REST spec Microsoft.OperationalInsights Workspaces.json (2023-09-01), Microsoft.Insights
components_API.json (2020-02-02)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.azure.standin.messages import Json, Refused
from tests.azure.standin.resources import ResourceId, ResourceType
from tests.azure.standin.shapes import (
    ANY,
    FLAG,
    NUMBER,
    SERVER,
    TEXT,
    TRACKED,
    Optional,
    check_shape,
)
from tests.azure.standin.world import TENANT, World, new_id, now

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

LOGS = "Microsoft.OperationalInsights/workspaces"
COMPONENT = "Microsoft.Insights/components"
LOGS_SHAPE = {
    **TRACKED,
    "identity": SERVER,
    "properties": Optional(
        {
            "sku": Optional(
                {
                    "name": {"PerGB2018", "CapacityReservation", "Free", "Standalone", "PerNode"},
                    "lastSkuUpdate": SERVER,
                }
            ),
            "retentionInDays": Optional(NUMBER),
            "workspaceCapping": Optional(ANY),
            "publicNetworkAccessForIngestion": Optional({"Enabled", "Disabled"}),
            "publicNetworkAccessForQuery": Optional({"Enabled", "Disabled"}),
            "features": Optional(ANY),
            "customerId": SERVER,
            "provisioningState": SERVER,
            "createdDate": SERVER,
            "modifiedDate": SERVER,
        }
    ),
}
COMPONENT_SHAPE = {
    **TRACKED,
    "kind": TEXT,
    "etag": SERVER,
    "properties": Optional(
        {
            "Application_Type": {"web", "other"},
            "Flow_Type": SERVER,
            "Request_Source": SERVER,
            "WorkspaceResourceId": Optional(TEXT),
            "IngestionMode": Optional({"ApplicationInsights", "LogAnalytics"}),
            "RetentionInDays": Optional(NUMBER),
            "SamplingPercentage": Optional(NUMBER),
            "DisableIpMasking": Optional(FLAG),
            "DisableLocalAuth": Optional(FLAG),
            "publicNetworkAccessForIngestion": Optional({"Enabled", "Disabled"}),
            "publicNetworkAccessForQuery": Optional({"Enabled", "Disabled"}),
            "ApplicationId": SERVER,
            "AppId": SERVER,
            "Name": SERVER,
            "InstrumentationKey": SERVER,
            "ConnectionString": SERVER,
            "CreationDate": SERVER,
            "TenantId": SERVER,
            "provisioningState": SERVER,
            "HockeyAppId": SERVER,
        }
    ),
}


def _check_logs(world: World, target: ResourceId, body: Json) -> None:
    check_shape(body, LOGS_SHAPE, "Workspace")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{2,61}[A-Za-z0-9]", target.name):
        raise Refused(
            400,
            "InvalidParameter",
            f"Workspace name '{target.name}' is invalid: 4 to 63 letters, digits and '-', which is "
            "neither first nor last.",
        )
    days = (body.get("properties") or {}).get("retentionInDays")
    if days is not None and not 30 <= days <= 730:
        raise Refused(
            400, "InvalidParameter", "RetentionInDays must be between 30 and 730 for this SKU."
        )


def _put_logs(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    had = before["properties"] if before else {}
    properties = {
        "sku": {"name": "PerGB2018"},
        "retentionInDays": 30,
        "publicNetworkAccessForIngestion": "Enabled",
        "publicNetworkAccessForQuery": "Enabled",
        **(body.get("properties") or {}),
        "customerId": had.get("customerId", new_id()),
        "provisioningState": "Succeeded",
        "createdDate": had.get("createdDate", now()),
        "modifiedDate": now(),
    }
    return {**body, "properties": properties}


def _check_component(world: World, target: ResourceId, body: Json) -> None:
    check_shape(body, COMPONENT_SHAPE, "ApplicationInsightsComponent")
    if not re.fullmatch(r"[\w().-]{0,254}[\w()-]", target.name):
        raise Refused(
            400, "InvalidResourceName", f"The component name '{target.name}' is not valid."
        )
    properties = body.get("properties") or {}
    if not properties.get("WorkspaceResourceId"):
        # Classic components were retired in 2024.
        raise Refused(
            400,
            "BadRequest",
            "The WorkspaceResourceId property is required: classic Application Insights is retired.",
        )


def _put_component(world: World, target: ResourceId, body: Json, before: Json | None) -> Json:
    wanted = body["properties"]["WorkspaceResourceId"]
    if wanted.lower() not in world.resources:
        raise Refused(404, "WorkspaceNotFound", f"The workspace '{wanted}' could not be found.")
    had = before["properties"] if before else {}
    key = had.get("InstrumentationKey") or new_id()
    app = had.get("AppId") or new_id()
    place = body["location"]
    properties = {
        "RetentionInDays": 90,
        "IngestionMode": "LogAnalytics",
        "publicNetworkAccessForIngestion": "Enabled",
        "publicNetworkAccessForQuery": "Enabled",
        **body["properties"],
        "ApplicationId": target.name,
        "AppId": app,
        "Name": target.name,
        "Flow_Type": "Bluefield",
        "InstrumentationKey": key,
        "ConnectionString": f"InstrumentationKey={key};IngestionEndpoint=https://{place}-0.in."
        f"applicationinsights.azure.com/;LiveEndpoint=https://{place}.livediagnostics.monitor.azure.com/;"
        f"ApplicationId={app}",
        "CreationDate": had.get("CreationDate") or now(),
        "TenantId": TENANT,
        "provisioningState": "Succeeded",
    }
    return {**body, "properties": properties}


def add(parts: Parts) -> None:
    """The types."""
    spec = "REST spec: Microsoft.OperationalInsights Workspaces.json"
    versions = ("2020-08-01", "2021-06-01", "2022-10-01", "2023-09-01", "2025-02-01")
    parts.types.add(ResourceType(LOGS, versions, spec, check=_check_logs, put=_put_logs))
    spec = "REST spec: Microsoft.Insights components_API.json"
    parts.types.add(
        ResourceType(COMPONENT, ("2020-02-02",), spec, check=_check_component, put=_put_component)
    )
