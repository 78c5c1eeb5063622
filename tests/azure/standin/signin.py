"""Sign-in: login.microsoftonline.com, and the token endpoint of a virtual machine (IMDS).

A service principal signs in with its secret or with the token of a CI job, a person with a device
code, a machine by being one. Error numbers and sentences are those of Microsoft's list of AADSTS codes:
https://learn.microsoft.com/entra/identity-platform/reference-error-codes
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from tests.azure.standin.directory import (
    USER_OBJECT,
    Principal,
    access_token,
    directory,
    encoded,
    signed,
)
from tests.azure.standin.messages import Answer, Json, Request
from tests.azure.standin.world import TENANT, World, new_id, now

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

LOGIN = "login.microsoftonline.com"
IMDS = "169.254.169.254"
#: "common" and the like stand for the tenant of who signs in.
ANY_TENANT = ("common", "organizations")
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
EXCHANGE = "api://AzureADTokenExchange"
MSAL = "msal: authority.py, oauth2cli"


@dataclass
class Pending:
    """Device codes on their way, by code, and refresh tokens, with the polls or the principal."""

    devices: dict[str, int] = field(default_factory=dict)
    refresh: dict[str, str] = field(default_factory=dict)


def _pending(world: World) -> Pending:
    found = world.rooms.setdefault("signin", Pending())
    assert isinstance(found, Pending)
    return found


class Denied(Exception):
    """What the token endpoint refuses: its OAuth error, AADSTS number and sentence."""

    def __init__(self, status: int, error: str, number: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.error, self.number, self.sentence = status, error, number, sentence

    def answer(self) -> Answer:
        trace, correlation = new_id(), new_id()
        description = (
            f"AADSTS{self.number}: {self.sentence} Trace ID: {trace} Correlation ID: {correlation} "
            f"Timestamp: {now()[:19]}Z"
        )
        return Answer(
            self.status,
            {
                "error": self.error,
                "error_description": description,
                "error_codes": [self.number],
                "timestamp": f"{now()[:19]}Z",
                "trace_id": trace,
                "correlation_id": correlation,
                "error_uri": f"https://{LOGIN}/error?code={self.number}",
            },
        )


def _check_tenant(tenant: str) -> None:
    if tenant.lower() not in (TENANT, *ANY_TENANT):
        raise Denied(
            400,
            "invalid_request",
            90002,
            f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are "
            "signing into the correct cloud. Check with your subscription administrator, this may "
            "happen if there are no active subscriptions for the tenant.",
        )


def _claims(token: str) -> Json:
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError):
        claims = None
    if not isinstance(claims, dict):
        raise Denied(
            400,
            "invalid_request",
            50027,
            "JWT token is invalid or malformed.",
        )
    return claims


def _by_assertion(app: Principal, form: dict[str, str]) -> None:
    """A CI job's token for one of ours. Its signature is not checked: its issuer is far away."""
    if form.get("client_assertion_type") != ASSERTION:
        raise Denied(400, "invalid_request", 900144, "client_assertion_type is required.")
    claims = _claims(form["client_assertion"])
    begin, end = float(claims.get("nbf", 0)), float(claims.get("exp", 0))
    if not begin - 300 <= time.time() <= end:
        raise Denied(
            401,
            "invalid_client",
            700024,
            "Client assertion is not within its valid time range.",
        )
    if claims.get("aud") != EXCHANGE:
        raise Denied(
            400,
            "invalid_request",
            700212,
            "No matching federated identity record found for presented assertion audience "
            f"'{claims.get('aud')}'.",
        )
    if (claims.get("iss"), claims.get("sub")) not in app.federated:
        raise Denied(
            401,
            "invalid_client",
            700213,
            "No matching federated identity record found for presented assertion subject "
            f"'{claims.get('sub')}'. Check your federated identity credential Subject, Audience and "
            "Issuer against the presented assertion.",
        )


def _client_credentials(world: World, form: dict[str, str]) -> Principal:
    client = form.get("client_id", "")
    app = directory(world).application(client)
    if app is None or app.resource:
        raise Denied(
            400,
            "unauthorized_client",
            700016,
            f"Application with identifier '{client}' was not found in the directory '{TENANT}'. This "
            "can happen if the application has not been installed by the administrator of the tenant "
            "or consented to by any user in the tenant. You may have sent your authentication request "
            "to the wrong tenant.",
        )
    if "client_assertion" in form:
        _by_assertion(app, form)
    elif not form.get("client_secret"):
        raise Denied(
            401,
            "invalid_client",
            7000218,
            "The request body must contain the following parameter: 'client_assertion' or "
            "'client_secret'.",
        )
    elif form["client_secret"] != app.secret:
        raise Denied(
            401,
            "invalid_client",
            7000215,
            "Invalid client secret provided. Ensure the secret being sent in the request is the client "
            f"secret value, not the client secret ID, for a secret added to app '{client}'.",
        )
    elif world.faults.has("secret expired"):
        raise Denied(
            401,
            "invalid_client",
            7000222,
            f"The provided client secret keys for app '{client}' are expired. Visit the Azure portal to "
            "create new keys for your app: https://aka.ms/NewClientSecret, or consider using "
            "certificate credentials for added security: https://aka.ms/certCreds.",
        )
    return app


def _device(world: World, form: dict[str, str]) -> Principal:
    """Pending on the first poll, the user's the next time."""
    devices = _pending(world).devices
    code = form.get("device_code", "")
    if code not in devices:
        raise Denied(400, "bad_verification_code", 70018, "Invalid verification code.")
    if world.faults.has("device code expired"):
        raise Denied(
            400,
            "expired_token",
            70019,
            "Verification code expired. Have the user retry the sign-in.",
        )
    devices[code] += 1
    if devices[code] == 1:
        raise Denied(
            400,
            "authorization_pending",
            70016,
            "OAuth 2.0 device flow error. Authorization is pending. Continue polling.",
        )
    del devices[code]
    return directory(world).principals[USER_OBJECT]


def _refreshed(world: World, form: dict[str, str]) -> Principal:
    who = _pending(world).refresh.get(form.get("refresh_token", ""))
    if who is None or world.faults.has("refresh token revoked"):
        raise Denied(
            400,
            "invalid_grant",
            50173,
            "The provided grant has expired due to it being revoked, a fresh auth token is needed. The "
            "user might have changed or reset their password.",
        )
    return directory(world).principals[who]


def _audience(form: dict[str, str]) -> str:
    """The resource a scope names: "https://management.core.windows.net//.default openid" and the like."""
    wanted = [
        scope
        for scope in form.get("scope", "").split()
        if scope not in ("openid", "profile", "offline_access", "email")
    ]
    if not wanted:
        return form.get("resource", "00000003-0000-0000-c000-000000000000")
    return wanted[0].rpartition("/")[0]


def _grant(world: World, form: dict[str, str]) -> Json:
    grant = form.get("grant_type", "")
    if grant == "client_credentials":
        principal = _client_credentials(world, form)
    elif grant == DEVICE_GRANT:
        principal = _device(world, form)
    elif grant == "refresh_token":
        principal = _refreshed(world, form)
    else:
        raise Denied(
            400,
            "unsupported_grant_type",
            70003,
            f"The app requested an unsupported grant type '{grant}'.",
        )
    token, lifetime = access_token(world, principal, _audience(form))
    given: Json = {
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": token,
    }
    if principal.kind == "User":
        refresh = secrets.token_urlsafe(32)
        _pending(world).refresh[refresh] = principal.object_id
        client = {"uid": principal.object_id, "utid": TENANT}
        begin = int(time.time())
        identity = {
            "aud": form.get("client_id"),
            "iss": f"https://{LOGIN}/{TENANT}/v2.0",
            "iat": begin,
            "nbf": begin,
            "exp": begin + 3600,
            "oid": principal.object_id,
            "sub": principal.object_id,
            "tid": TENANT,
            "preferred_username": principal.name,
            "name": principal.name,
            "ver": "2.0",
        }
        given |= {
            "scope": form.get("scope", ""),
            "refresh_token": refresh,
            "id_token": signed(world, identity),
            "client_info": encoded(json.dumps(client).encode()),
            "foci": "1",
        }
    return given


def _discovery(tenant: str) -> Json:
    here = f"https://{LOGIN}/{tenant}"
    return {
        "issuer": f"https://{LOGIN}/{'{tenantid}' if tenant in ANY_TENANT else tenant}/v2.0",
        "authorization_endpoint": f"{here}/oauth2/v2.0/authorize",
        "token_endpoint": f"{here}/oauth2/v2.0/token",
        "device_authorization_endpoint": f"{here}/oauth2/v2.0/devicecode",
        "jwks_uri": f"{here}/discovery/v2.0/keys",
        "tenant_region_scope": "NA",
        "cloud_instance_name": "microsoftonline.com",
    }


def add(parts: Parts) -> None:
    """Routes of the sign-in hosts."""
    routes, faults = parts.routes, parts.world.faults
    parts.world.plain.add(IMDS)
    faults.declare("secret expired", "the client secret is right and too old (AADSTS7000222)")
    faults.declare("device code expired", "the person at the other device is too late")
    faults.declare("refresh token revoked", "a login no longer lasts (AADSTS50173)")
    faults.declare("no managed identity", "this machine has no identity: IMDS answers 400")

    @routes.add(LOGIN, "GET", "/{tenant}/v2.0/.well-known/openid-configuration", source=MSAL)
    def configuration(world: World, request: Request, tenant: str) -> Answer:
        try:
            _check_tenant(tenant)
        except Denied as denied:
            return denied.answer()
        return Answer(200, _discovery(tenant.lower()))

    @routes.add(LOGIN, "GET", "/common/discovery/instance", source="msal: authority.py")
    def instance(world: World, request: Request) -> Json:
        return {
            "tenant_discovery_endpoint": f"https://{LOGIN}/{TENANT}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [
                {
                    "preferred_network": LOGIN,
                    "preferred_cache": "login.windows.net",
                    "aliases": [
                        LOGIN,
                        "login.windows.net",
                        "login.microsoft.com",
                        "sts.windows.net",
                    ],
                }
            ],
        }

    @routes.add(LOGIN, "GET", "/common/userrealm/{user}", source="msal: application.py")
    def realm(world: World, request: Request, user: str) -> Json:
        return {"ver": "1.0", "account_type": "Managed", "domain_name": user.partition("@")[2]}

    def token(world: World, request: Request, tenant: str) -> Answer:
        try:
            _check_tenant(tenant)
            return Answer(200, _grant(world, dict(parse_qsl(request.body.decode()))))
        except Denied as denied:
            return denied.answer()

    routes.add(LOGIN, "POST", "/{tenant}/oauth2/v2.0/token", source=MSAL)(token)

    @routes.add(LOGIN, "POST", "/{tenant}/oauth2/token", source="azureml-core: authentication.py")
    def token_v1(world: World, request: Request, tenant: str) -> Answer:
        answer = token(world, request, tenant)
        if answer.status == 200:
            # Version 1 says when, and for what, as text.
            seconds = answer.body["expires_in"]
            answer.body.update(
                expires_in=str(seconds),
                ext_expires_in=str(seconds),
                expires_on=str(int(time.time()) + seconds),
                resource=dict(parse_qsl(request.body.decode())).get("resource"),
            )
        return answer

    @routes.add(
        LOGIN, "POST", "/{tenant}/oauth2/v2.0/devicecode", source="RFC 8628; msal: oauth2.py"
    )
    def device_code(world: World, request: Request, tenant: str) -> Answer:
        try:
            _check_tenant(tenant)
        except Denied as denied:
            return denied.answer()
        code, user_code = secrets.token_urlsafe(32), secrets.token_hex(4).upper()
        _pending(world).devices[code] = 0
        page = "https://microsoft.com/devicelogin"
        return Answer(
            200,
            {
                "user_code": user_code,
                "device_code": code,
                "verification_uri": page,
                "expires_in": 900,
                "interval": 1,
                "message": f"To sign in, use a web browser to open the page {page} and enter the code "
                f"{user_code} to authenticate.",
            },
        )

    @routes.add(
        IMDS,
        "GET",
        "/metadata/identity/oauth2/token",
        source="https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token",
        versions=("2018-02-01", "2019-08-01", "2021-02-01"),
    )
    def machine_token(world: World, request: Request) -> Answer:
        if request.headers.get("metadata", "").lower() != "true":
            return Answer(
                400,
                {
                    "error": "bad_request_102",
                    "error_description": "Required metadata header not specified",
                },
            )
        people = directory(world)
        wanted = request.query.get("client_id")
        principal = (
            people.application(wanted)
            if wanted
            else people.principals.get(people.machine or new_id())
        )
        if principal is None or world.faults.has("no managed identity"):
            return Answer(
                400, {"error": "invalid_request", "error_description": "Identity not found"}
            )
        resource = request.query.get("resource", "")
        text, lifetime = access_token(world, principal, resource)
        end = int(time.time()) + lifetime
        return Answer(
            200,
            {
                "access_token": text,
                "client_id": principal.app_id,
                "expires_in": str(lifetime),
                "expires_on": str(end),
                "ext_expires_in": str(lifetime),
                "not_before": str(end - lifetime),
                "resource": resource,
                "token_type": "Bearer",
            },
        )
