"""Where a workspace's services are; asked without a token."""

from __future__ import annotations

from tests.azure.standin.messages import Json, Request
from tests.azure.standin.ml.workspace import HOST, Plane
from tests.azure.standin.routes import ARM
from tests.azure.standin.world import World

#: The public cloud, as ARM describes it to whoever asks.
CLOUD: Json = {
    "name": "AzureCloud",
    "portal": "https://portal.azure.com",
    "resourceManager": "https://management.azure.com/",
    "authentication": {
        "loginEndpoint": "https://login.microsoftonline.com/",
        "audiences": ["https://management.core.windows.net/", "https://management.azure.com/"],
        "tenant": "common",
        "identityProvider": "AAD",
    },
    "media": "https://rest.media.azure.net",
    "graph": "https://graph.windows.net/",
    "graphAudience": "https://graph.windows.net/",
    "batch": "https://batch.core.windows.net/",
    "gallery": "https://gallery.azure.com/",
    "vmImageAliasDoc": "https://raw.githubusercontent.com/Azure/azure-rest-api-specs/master/arm-compute/"
    "quickstart-templates/aliases.json",
    "sqlManagement": "https://management.core.windows.net:8443/",
    "activeDirectoryDataLake": "https://datalake.azure.net/",
    "suffixes": {
        "storage": "core.windows.net",
        "keyVaultDns": "vault.azure.net",
        "acrLoginServer": "azurecr.io",
        "sqlServerHostname": "database.windows.net",
        "azureDataLakeStoreFileSystem": "azuredatalakestore.net",
        "azureDataLakeAnalyticsCatalogAndJob": "azuredatalakeanalytics.net",
    },
}
SERVICES = ("api", "history", "experimentation", "hyperdrive", "modelmanagement", "studio")


def add(plane: Plane) -> None:
    @plane.parts.routes.add(
        ARM,
        "GET",
        "/metadata/endpoints",
        source="https://management.azure.com/metadata/endpoints?api-version=2019-05-01",
        versions=("2019-05-01",),
    )
    def clouds(world: World, request: Request) -> list[Json]:
        return [CLOUD]

    @plane.parts.routes.add(
        HOST, "GET", "/discovery", source="azureml-core _base_sdk_common/service_discovery.py"
    )
    @plane.parts.routes.add(
        HOST,
        "GET",
        "/discovery/{rest...}",
        source="azureml-core _base_sdk_common/service_discovery.py",
    )
    def discover(world: World, request: Request, region: str, rest: str = "") -> Json:
        url = f"https://{region}.api.azureml.ms"
        return {**dict.fromkeys(SERVICES, url), "studio": "https://ml.azure.com"}
