"""What is in key vaults: who may come in, and the secrets, at <vault>.vault.azure.net.

Source: Azure/azure-rest-api-specs keyvault/data-plane (secrets.json) and the azure-cli recordings
keyvault/test_keyvault_secret and test_keyvault_secret_soft_delete; refusals by roles and policies are
worded as users report them.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.azure.standin.access import allowed
from tests.azure.standin.directory import check_token
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.resources import of_type
from tests.azure.standin.shapes import FLAG, NUMBER, TEXT, Map, Optional, check_shape
from tests.azure.standin.vaults import VAULT, when_purged
from tests.azure.standin.world import TENANT, World, new_id

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

HOST = "{vault}.vault.azure.net"
AUDIENCE = "https://vault.azure.net"
VERSIONS = ("7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01")
SECRETS = "Azure/azure-rest-api-specs keyvault data-plane secrets.json"
RECORDED = "azure-cli recordings keyvault/test_keyvault_secret_soft_delete"
PAGE = 25
ATTRIBUTES = Optional(
    {
        "enabled": Optional(FLAG),
        "nbf": Optional(NUMBER),
        "exp": Optional(NUMBER),
        "exportable": Optional(FLAG),
    }
)
SHAPE = {
    "value": TEXT,
    "contentType": Optional(TEXT),
    "attributes": ATTRIBUTES,
    "tags": Optional(Map(TEXT)),
}

#: For each operation its data action and the word that access policies have for it.
OPERATIONS: Mapping[str, tuple[str, str]] = {
    "secrets/get": ("secrets/getSecret/action", "get"),
    "secrets/list": ("secrets/readMetadata/action", "list"),
    "secrets/set": ("secrets/setSecret/action", "set"),
    "secrets/update": ("secrets/update/action", "set"),
    "secrets/delete": ("secrets/delete", "delete"),
    "secrets/recover": ("secrets/recover/action", "recover"),
    "secrets/purge": ("secrets/purge/action", "purge"),
    "certificates/get": ("certificates/read", "get"),
    "certificates/list": ("certificates/read", "list"),
    "certificates/create": ("certificates/create/action", "create"),
    "certificates/import": ("certificates/import/action", "import"),
    "certificates/update": ("certificates/update/action", "update"),
    "certificates/delete": ("certificates/delete", "delete"),
    "certificates/recover": ("certificates/recover/action", "recover"),
    "certificates/purge": ("certificates/purge/action", "purge"),
}


@dataclass
class Room:
    """One vault's objects of a kind by name: their versions, oldest first, and the deleted ones."""

    kept: dict[str, list[Json]] = field(default_factory=dict)
    deleted: dict[str, Json] = field(default_factory=dict)
    #: The versions of what was deleted, for recovery.
    gone: dict[str, list[Json]] = field(default_factory=dict)


@dataclass
class Vault:
    """A vault, for whom it has let in."""

    resource: Json
    rooms: dict[str, Room]

    @property
    def uri(self) -> str:
        return str(self.resource["properties"]["vaultUri"])

    @property
    def name(self) -> str:
        return str(self.resource["name"])

    def recovery(self) -> Json:
        """The attributes that say how long a deleted object can be had back."""
        properties = self.resource["properties"]
        days = properties["softDeleteRetentionInDays"]
        level = "Recoverable" if days == 90 else "CustomizedRecoverable"
        purgeable = "" if properties.get("enablePurgeProtection") else "+Purgeable"
        return {"recoveryLevel": level + purgeable, "recoverableDays": days}

    def attributes(self, asked: Json | None) -> Json:
        """An object's attributes when it is made."""
        at = int(time.time())
        mine = {name: value for name, value in (asked or {}).items() if value is not None}
        return {"enabled": True, **mine, "created": at, "updated": at, **self.recovery()}


class VaultRefused(Refused):
    """An error of the vault itself, with the inner one that clients look for."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        inner: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code, message, headers=headers)
        self.inner = inner

    def answer(self) -> Answer:
        error: Json = {"code": self.code, "message": self.message}
        if self.inner:
            error["innererror"] = {"code": self.inner}
        return Answer(self.status, {"error": error}, self.headers)


def _find(world: World, host: str) -> Vault:
    name = host.partition(".")[0]
    for resource in of_type(world, VAULT):
        if resource["name"].lower() == name:
            rooms = world.rooms.setdefault("vault contents", {})
            mine = rooms.setdefault(
                str(resource["id"]).lower(), {"secrets": Room(), "certificates": Room()}
            )
            return Vault(resource, mine)
    raise VaultRefused(404, "VaultNotFound", f"There is no vault {name}.")


def enter(world: World, request: Request, operation: str, name: str = "") -> Vault:
    """The vault a request is about, if the caller may do `operation` ("secrets/get") there."""
    vault = _find(world, request.host)
    if not request.headers.get("authorization"):
        raise _challenge("AKV10000: Request is missing a Bearer or PoP token.")
    try:
        caller = check_token(world, request, (AUDIENCE,))
    except Refused as refused:
        raise _challenge(f"AKV10022: {refused.message}") from None
    _check_network(vault)
    action, word = OPERATIONS[operation]
    kind = operation.partition("/")[0]
    who = f"appid={caller.app_id};oid={caller.object_id};iss=https://sts.windows.net/{TENANT}/"
    where = f"{vault.name};location={vault.resource['location']}"
    if vault.resource["properties"]["enableRbacAuthorization"]:
        scope = str(vault.resource["id"]) + (f"/{kind}/{name}" if name else "")
        full = f"{VAULT}/{action}"
        has = allowed(world, caller.object_id, full, scope, data=True)
        if not has or world.faults.has("vault knows no new roles"):
            raise VaultRefused(
                403,
                "Forbidden",
                "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny "
                "assignments or role definitions were changed recently, please observe propagation time."
                f"\r\nCaller: {who}\r\nAction: '{full}'\r\nResource: '{scope.lower()}'\r\nAssignment: (not "
                f"found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\nVault: {where}\r\n",
                "ForbiddenByRbac",
            )
    elif not _by_policy(vault, caller.object_id, kind, word):
        raise VaultRefused(
            403,
            "Forbidden",
            f"The user, group or application '{who}' does not have {kind} {word} permission on key vault "
            f"'{where}'. For help resolving this issue, please see "
            "https://go.microsoft.com/fwlink/?linkid=2125287",
            "ForbiddenByPolicy",
        )
    return vault


def _by_policy(vault: Vault, who: str, kind: str, word: str) -> bool:
    for policy in vault.resource["properties"]["accessPolicies"]:
        words = [each.lower() for each in policy["permissions"].get(kind) or []]
        if policy["objectId"] == who and (word in words or "all" in words):
            return True
    return False


def _check_network(vault: Vault) -> None:
    properties = vault.resource["properties"]
    if properties.get("publicNetworkAccess") == "Disabled":
        raise VaultRefused(
            403,
            "Forbidden",
            "Public network access is disabled and request is not from a trusted service nor via an "
            f"approved private link.\r\nCaller: \r\nVault: {vault.name};"
            f"location={vault.resource['location']}",
            "ForbiddenByConnection",
        )
    acls = properties.get("networkAcls") or {}
    if acls.get("defaultAction") == "Deny" and not acls.get("ipRules"):
        raise VaultRefused(
            403,
            "Forbidden",
            "Client address is not authorized and caller is not a trusted service.\r\nClient address: "
            f"127.0.0.1\r\nVault: {vault.name};location={vault.resource['location']}",
            "ForbiddenByFirewall",
        )


def _challenge(message: str) -> VaultRefused:
    header = (
        f'Bearer authorization="https://login.microsoftonline.com/{TENANT}", resource="{AUDIENCE}"'
    )
    return VaultRefused(401, "Unauthorized", message, headers={"WWW-Authenticate": header})


def parts_of(rest: str) -> tuple[str, str]:
    """Name and version ("" for the newest) of "name", "name/" or "name/version"."""
    name, _, version = rest.partition("/")
    if not re.fullmatch(r"[0-9a-zA-Z-]{1,127}", name):
        raise VaultRefused(400, "BadParameter", f"The request URI contains an invalid name: {name}")
    return name, version.rstrip("/")


def checked(request: Request, shape: Any) -> Json:
    """The body, checked in the vault's words."""
    body = request.mapping()
    try:
        check_shape(body, shape, "parameters")
    except Refused as refused:
        raise VaultRefused(400, "BadParameter", refused.message) from None
    return body


def versions(vault: Vault, kind: str, name: str) -> list[Json]:
    """An object's versions, oldest first; Refused (404) if there are none."""
    found = vault.rooms[kind].kept.get(name)
    if not found:
        word = kind.removesuffix("s")
        raise VaultRefused(
            404,
            f"{word.title()}NotFound",
            f"A {word} with (name/id) {name} was not found in this key vault. If you recently deleted "
            f"this {word} you may be able to recover it using the correct recovery command. For help "
            "resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182",
        )
    return found


def version(vault: Vault, kind: str, name: str, wanted: str) -> Json:
    """One version, the newest for ""."""
    found = versions(vault, kind, name)
    if not wanted:
        return found[-1]
    for each in found:
        if each["id"].endswith("/" + wanted):
            return each
    word = kind.removesuffix("s")
    raise VaultRefused(
        404,
        f"{word.title()}NotFound",
        f"A {word} with (name/id) {name}/{wanted} was not found in this key vault.",
    )


def keep(vault: Vault, kind: str, name: str, made: Json) -> Json:
    """Add a version; Refused (409) while the name is that of a deleted object."""
    if name in vault.rooms[kind].deleted:
        word = kind.removesuffix("s")
        raise VaultRefused(
            409,
            "Conflict",
            f"{word.title()} {name} is currently in a deleted but recoverable state, and its name cannot "
            f"be reused; in this state, the {word} can only be recovered or purged.",
            "ObjectIsDeletedButRecoverable",
        )
    vault.rooms[kind].kept.setdefault(name, []).append(made)
    return made


def remove(vault: Vault, kind: str, name: str) -> Json:
    """Soft-delete an object; returns it as deleted."""
    newest = versions(vault, kind, name)[-1]
    begin = int(time.time())
    room = vault.rooms[kind]
    shown = {
        "recoveryId": f"{vault.uri}deleted{kind}/{name}",
        "deletedDate": begin,
        "scheduledPurgeDate": begin + vault.recovery()["recoverableDays"] * 86400,
        **{field: value for field, value in newest.items() if field != "value"},
    }
    room.deleted[name] = shown
    room.gone[name] = room.kept.pop(name)
    return shown


def recover(vault: Vault, kind: str, name: str) -> Json:
    """Bring a deleted object back."""
    find_deleted(vault, kind, name)
    room = vault.rooms[kind]
    del room.deleted[name]
    room.kept[name] = room.gone.pop(name)
    return {field: value for field, value in room.kept[name][-1].items() if field != "value"}


def purge(vault: Vault, kind: str, name: str) -> None:
    """Forget a deleted object for good, where the vault is not protected."""
    find_deleted(vault, kind, name)
    if vault.resource["properties"].get("enablePurgeProtection"):
        raise VaultRefused(
            403,
            "Forbidden",
            'Operation "purge" is not allowed because purge protection is enabled.',
        )
    del vault.rooms[kind].deleted[name], vault.rooms[kind].gone[name]


def find_deleted(vault: Vault, kind: str, name: str) -> Json:
    found = vault.rooms[kind].deleted.get(name)
    if found is None:
        word = kind.removesuffix("s")
        raise VaultRefused(
            404,
            f"{word.title()}NotFound",
            f"Deleted {word.title()} not found: {name}",
        )
    return found


def paged(request: Request, found: list[Json]) -> Json:
    """A page of a list."""
    size = int(request.query.get("maxresults") or PAGE)
    begin = int(request.query.get("$skiptoken") or 0)
    link = None
    if begin + size < len(found):
        link = (
            f"{request.url}?api-version={request.api_version}&$skiptoken={begin + size}"
            f"&maxresults={size}"
        )
    return {"value": found[begin : begin + size], "nextLink": link}


def listed(entry: Json, *, newest: bool = True) -> Json:
    """An object as a list has it: without what is in it, and its id without a version."""
    fields = ("id", "attributes", "contentType", "tags", "managed", "x5t")
    deleted = ("recoveryId", "deletedDate", "scheduledPurgeDate")
    shown = {name: entry[name] for name in (*fields, *deleted) if entry.get(name) is not None}
    if newest:
        shown["id"] = shown["id"].rpartition("/")[0]
    return shown


def secret(vault: Vault, name: str, made: Json, version_id: str = "") -> Json:
    """Keep a version of a secret, with its id."""
    identity = version_id or new_id().replace("-", "")
    return keep(vault, "secrets", name, {**made, "id": f"{vault.uri}secrets/{name}/{identity}"})


def add(parts: Parts) -> None:
    """Routes of secrets."""
    routes, world = parts.routes, parts.world
    world.domains["vault.azure.net"] = lambda host: any(
        each["name"].lower() == host.partition(".")[0] for each in of_type(world, VAULT)
    )
    world.faults.declare(
        "vault knows no new roles",
        "vaults refuse a role as they do in the minutes after its assignment",
    )
    when_purged(world, lambda vault: world.rooms.get("vault contents", {}).pop(vault, None))

    def found(entries: list[list[Json]]) -> list[Json]:
        return [listed(each[-1]) for each in entries if not each[-1].get("managed")]

    @routes.add(HOST, "GET", "/secrets", source=SECRETS, versions=VERSIONS)
    def list_secrets(world: World, request: Request, vault: str) -> Json:
        opened = enter(world, request, "secrets/list")
        return paged(request, found([*opened.rooms["secrets"].kept.values()]))

    @routes.add(HOST, "GET", "/secrets/{name}/versions", source=SECRETS, versions=VERSIONS)
    def list_versions(world: World, request: Request, vault: str, name: str) -> Json:
        opened = enter(world, request, "secrets/list", name)
        every = opened.rooms["secrets"].kept.get(name, [])
        return paged(request, [listed(each, newest=False) for each in every])

    @routes.add(
        HOST, "GET PUT PATCH DELETE", "/secrets/{rest...}", source=RECORDED, versions=VERSIONS
    )
    def one_secret(world: World, request: Request, vault: str, rest: str) -> Json:
        name, wanted = parts_of(rest)
        if request.method == "GET":
            opened = enter(world, request, "secrets/get", name)
            shown = version(opened, "secrets", name, wanted)
            if not shown["attributes"]["enabled"]:
                raise VaultRefused(
                    403,
                    "Forbidden",
                    "Operation get is not allowed on a disabled secret.",
                    "SecretDisabled",
                )
            return shown
        if request.method == "DELETE":
            opened = enter(world, request, "secrets/delete", name)
            if opened.rooms["certificates"].kept.get(name):
                raise VaultRefused(
                    403,
                    "Forbidden",
                    f"Secret {name} is managed by a certificate: delete that instead.",
                )
            return remove(opened, "secrets", name)
        if request.method == "PATCH":
            opened = enter(world, request, "secrets/update", name)
            changed = version(opened, "secrets", name, wanted)
            body = checked(request, {**SHAPE, "value": Optional(TEXT)})
            changed["attributes"] |= {**(body.get("attributes") or {}), "updated": int(time.time())}
            for each in ("tags", "contentType"):
                if body.get(each) is not None:
                    changed[each] = body[each]
            return {key: value for key, value in changed.items() if key != "value"}
        opened = enter(world, request, "secrets/set", name)
        body = checked(request, SHAPE)
        if len(body["value"].encode()) > 25_600:
            raise VaultRefused(
                400, "BadParameter", "The specified secret value exceeds the limit of 25 KB."
            )
        made = {
            key: copy.deepcopy(body[key])
            for key in ("value", "contentType")
            if body.get(key) is not None
        }
        made |= {
            "attributes": opened.attributes(body.get("attributes")),
            "tags": body.get("tags") or {},
        }
        return secret(opened, name, made)

    add_deleted(parts, "secrets", SECRETS)


def add_deleted(parts: Parts, kind: str, source: str) -> None:
    """Routes of the deleted objects of a kind."""
    routes = parts.routes

    @routes.add(HOST, "GET", f"/deleted{kind}", source=source, versions=VERSIONS)
    def list_deleted(world: World, request: Request, vault: str) -> Json:
        opened = enter(world, request, f"{kind}/list")
        return paged(request, [listed(each) for each in opened.rooms[kind].deleted.values()])

    @routes.add(HOST, "GET DELETE", f"/deleted{kind}/{{name}}", source=source, versions=VERSIONS)
    def one_deleted(world: World, request: Request, vault: str, name: str) -> Answer:
        if request.method == "DELETE":
            purge(enter(world, request, f"{kind}/purge", name), kind, name)
            return Answer(204)
        opened = enter(world, request, f"{kind}/list", name)
        return Answer(200, find_deleted(opened, kind, name))

    @routes.add(HOST, "POST", f"/deleted{kind}/{{name}}/recover", source=source, versions=VERSIONS)
    def recovered(world: World, request: Request, vault: str, name: str) -> Json:
        opened = enter(world, request, f"{kind}/recover", name)
        if kind == "certificates":
            recover(opened, "secrets", name)
        return recover(opened, kind, name)
