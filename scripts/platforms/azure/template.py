"""arm/main.json: what goes into it, and the roles that it assigns."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.platforms.azure.az import Az
from scripts.platforms.azure.names import ARM, Names
from scripts.platforms.azure.place import Place, group_id_of, last
from scripts.settings import Settings

VAULTS = "Microsoft.KeyVault/vaults"
REGISTRIES = "Microsoft.ContainerRegistry/registries"
STORAGE = "Microsoft.Storage/storageAccounts"
WORKSPACES = "Microsoft.MachineLearningServices/workspaces"
#: What the template makes, in the order it is told, by the field of Names.
MADE: Mapping[str, str] = {
    "storage": STORAGE,
    "vault": VAULTS,
    "logs": "Microsoft.OperationalInsights/workspaces",
    "insights": "Microsoft.Insights/components",
    "registry": REGISTRIES,
    "workspace": WORKSPACES,
    "identity": "Microsoft.ManagedIdentity/userAssignedIdentities",
    "cluster_identity": "Microsoft.ManagedIdentity/userAssignedIdentities",
}
#: Built-in roles; their ids are the same everywhere.
ROLES: Mapping[str, str] = {
    "7f951dda-4ed3-4680-a7ca-43fe172d538d": "AcrPull",
    "8311e382-0749-4cb8-b61a-304f252e45ec": "AcrPush",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": "Key Vault Secrets Officer",
    "00482a5a-887f-4fb3-b363-3b7fe8e74483": "Key Vault Administrator",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
}


@dataclass(frozen=True)
class Operator:
    """Who provisions: object id, and "User" or "ServicePrincipal"."""

    id: str
    kind: str


def operator(az: Az) -> Operator:
    """The signed-in account, as its own token says: that needs no right to read the directory."""
    part = az.token(ARM)[0].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    person = "upn" in claims or "scp" in claims
    return Operator(str(claims["oid"]), "User" if person else "ServicePrincipal")


def path(root: Path) -> Path:
    return root / "arm" / "main.json"


def parameters(
    settings: Settings, names: Names, who: Operator, *, existing: Mapping[str, str], recover: bool
) -> list[str]:
    """The template's parameters as az takes them; `existing` are a workspace's own resources."""
    values: dict[str, str | bool] = {
        "location": settings.LOCATION,
        "storageName": last(existing.get("storageId", names.storage)),
        "vaultName": last(existing.get("vaultId", names.vault)),
        "vaultCreateMode": "recover" if recover else "default",
        "purgeProtection": settings.PURGE_PROTECTION,
        "logsName": names.logs,
        "insightsName": last(existing.get("insightsId", names.insights)),
        "registryName": last(existing.get("registryId", names.registry)),
        "workspaceName": names.workspace,
        "existingWorkspace": bool(existing),
        "identityName": names.identity,
        "clusterIdentityName": names.cluster_identity,
        "roleAssignments": settings.ROLE_ASSIGNMENTS and not elsewhere(existing),
        "operatorId": who.id,
        "operatorType": who.kind,
    }
    return [
        f"{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in values.items()
    ]


def elsewhere(existing: Mapping[str, str]) -> bool:
    """Whether a workspace uses things of another group, where a template for its group cannot reach."""
    groups = {
        group_id_of(existing[name]).lower()
        for name in ("storageId", "vaultId", "registryId", "workspaceId")
        if name in existing
    }
    return len(groups) > 1


@dataclass(frozen=True)
class Assignment:
    """A role that somebody needs; `why` is a sentence."""

    principal: str
    kind: str
    role: str
    scope: str
    why: str

    @property
    def command(self) -> tuple[str, ...]:
        """What az is told, the word az left out."""
        return (
            *("role", "assignment", "create", "--assignee-object-id", self.principal),
            *("--assignee-principal-type", self.kind, "--role", self.role, "--scope", self.scope),
        )

    @property
    def line(self) -> str:
        """The command for a person to run."""
        return "az " + " ".join(f'"{word}"' if " " in word else word for word in self.command)


def assignments(root: Path, place: Place, who: Operator, *, existing: bool) -> Iterator[Assignment]:
    """The roles that the template assigns, read from it, so that there is one list of them."""
    template: dict[str, Any] = json.loads(path(root).read_text("utf-8"))
    scopes = {
        "registryName": place.registry_id,
        "vaultName": place.vault_id,
        "storageName": place.storage_id,
    }
    principals = {
        "identityName": (place.identity_principal, "ServicePrincipal"),
        "clusterIdentityName": (place.cluster_identity_principal, "ServicePrincipal"),
        "workspaceName": (place.workspace_principal, "ServicePrincipal"),
        "operatorId": (who.id, who.kind),
    }
    for resource in template["resources"]:
        if resource["type"] != "Microsoft.Authorization/roleAssignments":
            continue
        (scope,) = re.findall(r"parameters\('(\w+)'\)", resource["scope"])
        properties = resource["properties"]
        (principal,) = re.findall(r"parameters\('(\w+)'\)", properties["principalId"])
        (variable,) = re.findall(r"variables\('(\w+)'\)", properties["roleDefinitionId"])
        if existing and principal == "workspaceName":
            continue  # Azure ML gave it its roles when it was made
        yield Assignment(
            *principals[principal],
            role=ROLES[template["variables"][variable]],
            scope=scopes[scope],
            why=properties.get("description", ""),
        )
