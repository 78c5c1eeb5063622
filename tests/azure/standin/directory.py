"""The directory (Entra ID): who there is, and the tokens that say who somebody is.

Tokens are JWTs signed with a key of this stand-in's own; whoever answers for Azure checks them here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.azure.standin.messages import Json, Refused, Request
from tests.azure.standin.world import APP, APP_OBJECT, TENANT, World, new_id

#: A person of the tenant, for sign-in with a device code.
USER_OBJECT = "55555555-5555-4555-8555-555555555555"
USER_NAME = "someone@slipway.example"
#: What ARM takes for its own audience. Source: the message of InvalidAuthenticationTokenAudience.
ARM_AUDIENCES = (
    "https://management.core.windows.net",
    "https://management.azure.com",
)


@dataclass
class Principal:
    """A user, an application's service principal or a managed identity."""

    object_id: str
    kind: str  # "User" or "ServicePrincipal"
    name: str
    #: The client id; "" for a user.
    app_id: str = ""
    #: None: it does not sign in with a secret.
    secret: str | None = field(default=None, repr=False)
    #: The (issuer, subject) pairs it may exchange a token of.
    federated: set[tuple[str, str]] = field(default_factory=set)
    #: The resource whose managed identity it is, in lower case.
    resource: str = ""


@dataclass
class Directory:
    """All principals by object id, and what signs tokens."""

    principals: dict[str, Principal] = field(default_factory=dict)
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    #: Seconds an access token lives; a test may shorten it.
    lifetime: int = 3600
    #: The user-assigned identity (its object id) of the machine that asks at 169.254.169.254.
    machine: str = ""

    def application(self, app_id: str) -> Principal | None:
        """The principal with that client id."""
        found = (p for p in self.principals.values() if p.app_id.lower() == app_id.lower())
        return next(found, None) if app_id else None

    def add_identity(self, name: str, resource: str) -> Principal:
        """A managed identity for a resource (its id); the same one when called again."""
        for principal in self.principals.values():
            if principal.resource == resource.lower():
                return principal
        made = Principal(new_id(), "ServicePrincipal", name, new_id(), resource=resource.lower())
        self.principals[made.object_id] = made
        return made

    def remove_identity(self, resource: str) -> None:
        """The resource is gone, and its identity with it."""
        for key, principal in list(self.principals.items()):
            if principal.resource == resource.lower():
                del self.principals[key]


def directory(world: World) -> Directory:
    """The world's directory, made with its first application and user."""
    found = world.rooms.get("directory")
    if not isinstance(found, Directory):
        found = world.rooms["directory"] = Directory()
        app = Principal(APP_OBJECT, "ServicePrincipal", "slipway", APP, world.app_secret)
        found.principals[APP_OBJECT] = app
        found.principals[USER_OBJECT] = Principal(USER_OBJECT, "User", USER_NAME)
    return found


def encoded(data: bytes) -> str:
    """Base64 as JWTs have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(world: World, claims: Json) -> str:
    """A JWT of this stand-in."""
    header = encoded(json.dumps({"typ": "JWT", "alg": "HS256", "kid": "stand-in"}).encode())
    text = f"{header}.{encoded(json.dumps(claims).encode())}"
    return f"{text}.{encoded(hmac.digest(directory(world).key, text.encode(), hashlib.sha256))}"


def access_token(world: World, principal: Principal, audience: str) -> tuple[str, int]:
    """A token for `audience`, and the seconds it lives."""
    lifetime = directory(world).lifetime
    begin = int(time.time())
    claims: dict[str, Any] = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{TENANT}/",
        "iat": begin,
        "nbf": begin,
        "exp": begin + lifetime,
        "tid": TENANT,
        "oid": principal.object_id,
        "sub": principal.object_id,
        "ver": "1.0",
        "uti": new_id(),
    }
    if principal.kind == "User":
        claims |= {
            "upn": principal.name,
            "unique_name": principal.name,
            "scp": "user_impersonation",
        }
    else:
        claims |= {"appid": principal.app_id, "idtyp": "app"}
    if principal.resource:
        claims["xms_mirid"] = principal.resource
    return signed(world, claims), lifetime


def _genuine(world: World, token: str) -> bool:
    text, _, signature = token.rpartition(".")
    mine = encoded(hmac.digest(directory(world).key, text.encode(), hashlib.sha256))
    return hmac.compare_digest(mine, signature)


def check_token(
    world: World, request: Request, audiences: Iterable[str] = ARM_AUDIENCES
) -> Principal:
    """Whose token the request carries; Refused (401) in ARM's words if it is none, foreign or old.

    Source: ARM's codes and messages as public reports of them show.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if not token:
        raise _unauthorized(
            "AuthenticationFailed",
            "Authentication failed. The 'Authorization' header is missing.",
        )
    claims = request.claims
    if scheme.lower() != "bearer" or not claims or not _genuine(world, token):
        raise _unauthorized("InvalidAuthenticationToken", "The access token is invalid.")
    expiry = float(claims["exp"])
    if expiry < time.time():
        raise _unauthorized(
            "ExpiredAuthenticationToken",
            f"The access token expiry UTC time '{_clock(expiry)}' is earlier than current UTC time "
            f"'{_clock(time.time())}'.",
        )
    allowed = [audience.rstrip("/") for audience in audiences]
    if str(claims.get("aud", "")).rstrip("/") not in allowed:
        known = ",".join(f"'{audience}'" for audience in allowed)
        raise _unauthorized(
            "InvalidAuthenticationTokenAudience",
            f"The access token has been obtained for wrong audience or resource '{claims.get('aud')}'. "
            f"It should exactly match with one of the allowed audiences {known}.",
        )
    principal = directory(world).principals.get(str(claims["oid"]))
    if principal is None:
        raise _unauthorized("InvalidAuthenticationToken", "The access token is invalid.")
    return principal


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%m/%d/%Y %I:%M:%S %p")


def _unauthorized(code: str, message: str) -> Refused:
    challenge = (
        f'Bearer authorization_uri="https://login.microsoftonline.com/{TENANT}", '
        f'error="invalid_token", error_description="{message}"'
    )
    return Refused(401, code, message, headers={"WWW-Authenticate": challenge})
