"""Who may pull and push: the registry's own tokens, given for those of the directory.

An access token of the directory is exchanged for a refresh token, and that, or the admin user's
password, for an access token with the scopes that roles grant. The registry itself checks the latter.
Source: https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md and the azure-cli recording
acr/test_acr_login_expose_token.
"""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import jwt

from tests.azure.standin.access import allowed
from tests.azure.standin.directory import ARM_AUDIENCES, check_token
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.registry import ISSUER, TYPE, Registry, registry_of
from tests.azure.standin.world import TENANT, World, new_id

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

SOURCE = "https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md"
HOST = "{server}.azurecr.io"
AUDIENCES = (*ARM_AUDIENCES, "https://containerregistry.azure.net")
#: The user name that goes with a refresh token as password.
NOBODY = "00000000-0000-0000-0000-000000000000"
LIFETIME = 3 * 3600
#: The ARM action behind each action on a repository.
ACTIONS = {
    "pull": f"{TYPE}/pull/read",
    "metadata_read": f"{TYPE}/pull/read",
    "push": f"{TYPE}/push/write",
    "metadata_write": f"{TYPE}/push/write",
    "delete": f"{TYPE}/artifacts/delete",
}


class RegistryRefused(Refused):
    """An error in the form of registries: `{"errors": [...]}` (OCI distribution specification)."""

    def __init__(self, status: int, code: str, message: str, detail: Any = None) -> None:
        super().__init__(status, code, message)
        self.detail = detail

    def answer(self) -> Answer:
        error = {"code": self.code, "message": self.message, "detail": self.detail}
        return Answer(self.status, {"errors": [error]}, self.headers)


def refused(message: str = "authentication required", detail: Any = None) -> Refused:
    """401 in the registry's words."""
    text = f"{message}, visit https://aka.ms/acr/authorization for more information."
    return RegistryRefused(401, "UNAUTHORIZED", text, detail)


def may(world: World, registry: Registry, who: str, action: str) -> bool:
    """Whether a principal, or the admin user "", may do that on the registry's repositories."""
    if not who:
        return True
    return action in ACTIONS and allowed(world, who, ACTIONS[action], registry.id)


def refresh_token(registry: Registry, who: str) -> str:
    """A refresh token for a principal."""
    begin = int(time.time())
    claims = {
        "jti": new_id(),
        "sub": who,
        "iat": begin,
        "nbf": begin,
        "exp": begin + LIFETIME,
        "aud": registry.host,
        "iss": ISSUER,
        "version": "1.0",
        "grant_type": "refresh_token",
        "tenant": TENANT,
    }
    return jwt.encode(claims, registry.secret, algorithm="HS256")


def access_token(registry: Registry, who: str, access: list[Json]) -> str:
    """A token that the registry itself accepts."""
    begin = int(time.time())
    claims = {
        "jti": new_id(),
        "sub": who or "admin",
        "iat": begin,
        "nbf": begin - 60,
        "exp": begin + 75 * 60,
        "aud": registry.host,
        "iss": ISSUER,
        "version": "1.0",
        "access": access,
        "grant_type": "access_token",
    }
    headers = {"x5c": [registry.certificate]}
    return jwt.encode(claims, registry.key, algorithm="RS256", headers=headers)


def _who(registry: Registry, token: str) -> str:
    """The principal of a refresh token; Refused (401) if it is none of this registry's or old."""
    try:
        claims = jwt.decode(token, registry.secret, algorithms=["HS256"], audience=registry.host)
    except jwt.PyJWTError:
        raise refused() from None
    return str(claims["sub"])


def _by_password(world: World, registry: Registry, user: str, password: str) -> str:
    if user == NOBODY:
        return _who(registry, password)
    resource = world.resources[registry.id.lower()]
    kept = {
        value
        for (owner, name), value in world.keys.items()
        if owner == registry.id.lower() and name in ("password", "password2")
    }
    enabled = resource["properties"]["adminUserEnabled"]
    if not enabled or user.lower() != resource["name"].lower() or password not in kept:
        raise refused()
    return ""


def _granted(world: World, registry: Registry, who: str, scopes: Iterable[str]) -> list[Json]:
    """What of the scopes asked for ("repository:name:pull,push") the principal has."""
    given: list[Json] = []
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind == "registry" and may(world, registry, who, "pull"):
            given.append({"type": kind, "name": name, "actions": actions.split(",")})
        elif kind == "repository":
            wanted = actions.split(",")
            if "*" in wanted:
                wanted = sorted(ACTIONS)
            mine = [action for action in wanted if may(world, registry, who, action)]
            given.append({"type": kind, "name": name, "actions": mine})
    return given


def _check_service(registry: Registry, service: str | None) -> None:
    if (service or "").lower() != registry.host:
        raise RegistryRefused(400, "BAD_REQUEST", f"service {service!r} is not {registry.host!r}")


def add(parts: Parts) -> None:
    """Routes of /oauth2."""
    routes = parts.routes
    parts.world.faults.declare(
        "registry denies", "the registry's token service refuses who comes with a good token"
    )

    @routes.add(HOST, "POST", "/oauth2/exchange", source=SOURCE)
    def exchange(world: World, request: Request, server: str) -> Json:
        registry = registry_of(world, request.host)
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        _check_service(registry, form.get("service"))
        if form.get("grant_type") not in ("access_token", "access_token_refresh_token"):
            raise RegistryRefused(400, "UNSUPPORTED", "grant_type is not supported")
        if form.get("tenant", TENANT) != TENANT:
            raise refused()
        asked = dataclasses.replace(
            request, headers={"authorization": f"Bearer {form.get('access_token', '')}"}
        )
        try:
            who = check_token(world, asked, AUDIENCES).object_id
        except Refused:
            raise refused() from None
        # Without any role there is no refresh token either.
        if world.faults.has("registry denies") or not any(
            may(world, registry, who, action) for action in ACTIONS
        ):
            raise refused()
        return {"refresh_token": refresh_token(registry, who)}

    @routes.add(HOST, "POST", "/oauth2/token", source=SOURCE)
    def token(world: World, request: Request, server: str) -> Json:
        registry = registry_of(world, request.host)
        form = parse_qs(request.body.decode())
        first = {name: values[0] for name, values in form.items()}
        _check_service(registry, first.get("service"))
        if first.get("grant_type") == "refresh_token":
            who = _who(registry, first.get("refresh_token", ""))
        elif first.get("grant_type") == "password":
            user, password = first.get("username", ""), first.get("password", "")
            who = _by_password(world, registry, user, password)
        else:
            raise RegistryRefused(400, "UNSUPPORTED", "grant_type is not supported")
        scopes = [each for value in form.get("scope", []) for each in value.split()]
        return {"access_token": access_token(registry, who, _granted(world, registry, who, scopes))}

    @routes.add(HOST, "GET", "/oauth2/token", source="distribution: docs/spec/auth/token.md")
    def basic(world: World, request: Request, server: str) -> Json:
        registry = registry_of(world, request.host)
        query = parse_qs(request.raw_query)
        _check_service(registry, request.query.get("service"))
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(text).decode().partition(":")
        except ValueError:
            raise refused() from None
        if kind.lower() != "basic":
            raise refused()
        who = _by_password(world, registry, user, password)
        scopes = [each for value in query.get("scope", []) for each in value.split()]
        granted = access_token(registry, who, _granted(world, registry, who, scopes))
        return {"access_token": granted, "token": granted}
