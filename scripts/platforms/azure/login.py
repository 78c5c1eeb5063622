"""Who is signed in, and how to sign in: SIGN_IN says, or what the settings and the CI job hold.

secret     service principal SP_APP_ID with SP_APP_SECRET, which reaches az on its standard input
federated  service principal SP_APP_ID with the token that the CI job is given for itself: no secret
identity   the managed identity of the machine; SP_APP_ID names one that is assigned by a user
device     a person, with a code for the browser
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure.refusals import assignment
from scripts.settings import Settings

#: What Entra ID expects a CI job's token to be for.
AUDIENCE = "api://AzureADTokenExchange"
#: Where a job's token is or is asked for: AKS and others, GitHub, Azure DevOps (by request, by value).
FEDERATED = (
    "AZURE_FEDERATED_TOKEN_FILE",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "SYSTEM_ACCESSTOKEN",
    "idToken",
)
#: Set where a host offers a managed identity to its programs (App Service, Container Instances ...).
IDENTITY = ("IDENTITY_ENDPOINT", "MSI_ENDPOINT")

Run = Callable[..., str]


def method(settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """How to sign in."""
    if settings.SIGN_IN != "auto":
        return settings.SIGN_IN
    if settings.SP_APP_ID and settings.SP_APP_SECRET:
        return "secret"
    if client_id(settings, environ) and any(environ.get(name) for name in FEDERATED):
        return "federated"
    if any(environ.get(name) for name in IDENTITY):
        return "identity"
    return "device"


def silent(settings: Settings) -> bool:
    """Whether signing in again needs no person."""
    return method(settings) != "device"


def client_id(settings: Settings, environ: Mapping[str, str] = os.environ) -> str | None:
    """The application to sign in as; workload identity and Azure DevOps name it themselves."""
    return settings.SP_APP_ID or environ.get("AZURE_CLIENT_ID") or environ.get("servicePrincipalId")


def profile() -> list[dict[str, Any]]:
    """The subscriptions in az's own profile."""
    folder = os.environ.get("AZURE_CONFIG_DIR") or str(Path.home() / ".azure")
    try:
        # az writes it with a byte order mark.
        text = (Path(folder) / "azureProfile.json").read_text("utf-8-sig")
        found = json.loads(text).get("subscriptions") or []
    except (OSError, ValueError, AttributeError):
        return []
    return [item for item in found if isinstance(item, dict)]


def account(settings: Settings) -> dict[str, Any] | None:
    """The subscription as az's profile has it, if somebody of ours is signed in to it."""
    wanted = settings.require("SUBSCRIPTION_ID").lower()
    how = method(settings)
    assigned = client_id(settings)
    machine = f"msiclient-{assigned.lower()}" if assigned else "msi"
    for item in profile():
        user = item.get("user") or {}
        name = str(user.get("name", "")).lower()
        ours = {
            "secret": name == str(settings.SP_APP_ID).lower(),
            "federated": name == str(assigned).lower(),
            # In Azure Cloud Shell `az login --identity` signs in its user.
            "identity": bool(user.get("cloudShellID"))
            or str(user.get("assignedIdentityInfo", "")).lower() == machine,
            "device": True,
        }[how]
        tenant = settings.TENANT_ID is None or item.get("tenantId") == settings.TENANT_ID.lower()
        if ours and tenant and str(item.get("id", "")).lower() == wanted:
            return item
    return None


def cached(settings: Settings) -> bool:
    """Whether the login that az keeps is the one the settings ask for."""
    return account(settings) is not None


def who(settings: Settings) -> str:
    """The signed-in account and where, for people."""
    found = account(settings)
    if found is None:
        return "nobody"
    user = found.get("user") or {}
    kind = {"servicePrincipal": "service principal", "user": "user"}.get(str(user.get("type")), "")
    if "AssignedIdentity" in str(user.get("name")):
        kind = "managed identity"
    return f"{kind} {user.get('name')}, subscription {found.get('name')} ({found.get('id')})"


def sign_in(settings: Settings, run: Run, *, asked: bool = False) -> None:
    """Sign in; a person only where there is one, or was `asked` for.

    UsageError where the settings do not say enough, AzureError where Azure refuses.
    """
    how = method(settings)
    subscription = settings.require("SUBSCRIPTION_ID")
    command = ["login"]
    given: str | None = None
    if how in ("secret", "federated"):
        tenant = (
            settings.TENANT_ID or os.environ.get("AZURE_TENANT_ID") or settings.require("TENANT_ID")
        )
        name = client_id(settings) or settings.require("SP_APP_ID")
        command += ["--service-principal", "--username", name, "--tenant", tenant]
        if how == "secret":
            if settings.SP_APP_SECRET is None:
                settings.require("SP_APP_SECRET")
            else:
                given = settings.SP_APP_SECRET.get_secret_value()
            # One word: a secret may begin with a dash.
            command += ["--password=@-"]
        else:
            given = federated_token(os.environ)
            command += ["--federated-token", "@-"]
    elif how == "identity":
        command.append("--identity")
        if assigned := client_id(settings):
            command += ["--client-id", assigned]
    else:
        _needs_a_person(asked or settings.SIGN_IN == "device")
        command.append("--use-device-code")
        if settings.TENANT_ID:
            command += ["--tenant", settings.TENANT_ID]
    console.step(f"signing in to Azure ({DESCRIBED[how]})")
    run(command, given, shown=how == "device")
    if not cached(settings):
        seen = ", ".join(str(item.get("id")) for item in profile()) or "none"
        raise UsageError(
            f"SUBSCRIPTION_ID={subscription} is not among the subscriptions of this account "
            f"(it has {seen})",
            "set the right SUBSCRIPTION_ID and TENANT_ID, or have a role assigned there: "
            + assignment(client_id(settings), "Contributor", f"/subscriptions/{subscription}"),
        )


DESCRIBED = {
    "secret": "service principal",
    "federated": "federated token of the CI job",
    "identity": "managed identity",
    "device": "in a browser",
}


def _needs_a_person(asked: bool) -> None:
    """UsageError where nobody could read the code."""
    if not asked and (os.environ.get("CI") or not sys.stdout.isatty()):
        raise UsageError(
            "nobody is signed in to Azure here",
            "run `make login`, or set SP_APP_ID and SP_APP_SECRET (a CI job: a federated credential; "
            "a machine in Azure: SIGN_IN=identity)",
        )


def federated_token(environ: Mapping[str, str]) -> str:
    """The token that the CI job is given for itself; UsageError where there is none."""
    if file := environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        try:
            return Path(file).read_text("utf-8").strip()
        except OSError as error:
            raise UsageError(
                f"AZURE_FEDERATED_TOKEN_FILE={file}: {error.strerror}",
                "name a file that holds the token",
            ) from None
    if url := environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"):
        bearer = environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "")
        url += ("&" if "?" in url else "?") + urllib.parse.urlencode({"audience": AUDIENCE})
        request = urllib.request.Request(url)  # noqa: S310 (GitHub's own address)
        return _ask(request, bearer, "value")
    url = environ.get("SYSTEM_OIDCREQUESTURI")
    if url and environ.get("SYSTEM_ACCESSTOKEN"):
        connection = environ.get("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", "")
        more = {"api-version": "7.1", **({"serviceConnectionId": connection} if connection else {})}
        url += ("&" if "?" in url else "?") + urllib.parse.urlencode(more)
        request = urllib.request.Request(url, data=b"", method="POST")  # noqa: S310
        request.add_header("Content-Type", "application/json")
        return _ask(request, environ["SYSTEM_ACCESSTOKEN"], "oidcToken")
    if token := environ.get("idToken"):
        return token
    raise UsageError(
        "SIGN_IN=federated, and this is no CI job with a token",
        f"give the job the right to one (GitHub: `permissions: id-token: write`), or set one of {', '.join(FEDERATED)}",
    )


def _ask(request: urllib.request.Request, bearer: str, field: str) -> str:
    request.add_header("Authorization", f"Bearer {bearer}")
    request.add_header("Accept", "application/json")
    host = urllib.parse.urlsplit(request.full_url).hostname
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return str(json.load(answer)[field])
    except urllib.error.HTTPError as error:
        why = f"HTTP {error.code}"
    except (OSError, ValueError, KeyError) as error:
        why = f"{type(error).__name__}"
    raise SlipwayError(
        f"{host} gave no token for this CI job ({why})",
        "check the job's rights (GitHub: `permissions: id-token: write`; Azure DevOps: the service "
        "connection is one of workload identity federation, and SYSTEM_ACCESSTOKEN is passed on)",
    )
