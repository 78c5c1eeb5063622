"""`make login`, and the sign-in that every other verb does by itself."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from scripts.errors import SlipwayError
from scripts.platforms.azure import login
from scripts.settings import Settings
from tests.azure.conftest import AzureClone
from tests.azure.standin.directory import directory, encoded
from tests.azure.standin.faults import Fault
from tests.azure.standin.messages import Answer, Refused
from tests.azure.standin.world import APP, SUBSCRIPTION, TENANT

TOKEN_REQUEST = "POST https://login.microsoftonline.com/.*/oauth2/v2.0/token"


def settings(**values: str) -> Settings:
    given = {"PLATFORM": "azure", "SUBSCRIPTION_ID": SUBSCRIPTION, "TENANT_ID": TENANT, **values}
    return Settings.model_validate(given)


@pytest.mark.parametrize(
    ("values", "environ", "how"),
    [
        ({"SP_APP_ID": APP, "SP_APP_SECRET": "x"}, {}, "secret"),
        ({"SP_APP_ID": APP}, {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://x"}, "federated"),
        ({}, {"AZURE_CLIENT_ID": APP, "AZURE_FEDERATED_TOKEN_FILE": "/t"}, "federated"),
        ({}, {"servicePrincipalId": APP, "idToken": "t"}, "federated"),
        # A job of GitHub's that may ask for a token, and nothing says as whom.
        ({}, {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://x"}, "device"),
        ({}, {"IDENTITY_ENDPOINT": "http://localhost"}, "identity"),
        ({}, {}, "device"),
        ({"SIGN_IN": "identity", "SP_APP_ID": APP, "SP_APP_SECRET": "x"}, {}, "identity"),
    ],
)
def test_how_to_sign_in(values: dict[str, str], environ: dict[str, str], how: str) -> None:
    assert login.method(settings(**values), environ) == how


@pytest.mark.parametrize(
    ("account", "ours"),
    [
        ({}, True),
        ({"id": "99999999-0000-4000-8000-000000000000"}, False),
        ({"tenantId": "99999999-0000-4000-8000-000000000000"}, False),
        ({"user": {"name": "someone else", "type": "servicePrincipal"}}, False),
    ],
)
def test_az_profile_tells_who_is_signed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: dict[str, object], ours: bool
) -> None:
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    wanted = settings(SP_APP_ID=APP, SP_APP_SECRET="x")
    assert not login.cached(wanted)
    user = {"name": APP, "type": "servicePrincipal"}
    entry = {"id": SUBSCRIPTION, "tenantId": TENANT, "name": "ours", "user": user, **account}
    (tmp_path / "azureProfile.json").write_text(json.dumps({"subscriptions": [entry]}), "utf-8-sig")
    assert login.cached(wanted) == ours


@pytest.mark.parametrize(
    ("user", "system", "assigned"),
    [
        ({"name": "systemAssignedIdentity", "assignedIdentityInfo": "MSI"}, True, False),
        (
            {"name": "userAssignedIdentity", "assignedIdentityInfo": f"MSIClient-{APP.upper()}"},
            False,
            True,
        ),
        ({"name": "userAssignedIdentity", "assignedIdentityInfo": "MSIClient-other"}, False, False),
        ({"name": "live.com#someone@slipway.example", "cloudShellID": True}, True, True),
        ({"name": "someone@slipway.example"}, False, False),
    ],
)
def test_the_machines_identity_is_the_one_that_is_set(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: dict[str, object],
    system: bool,
    assigned: bool,
) -> None:
    """Source: azure-cli-core, _profile.py: login_with_managed_identity, login_in_cloud_shell."""
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    entry = {"id": SUBSCRIPTION, "tenantId": TENANT, "user": user}
    (tmp_path / "azureProfile.json").write_text(json.dumps({"subscriptions": [entry]}))
    assert login.cached(settings(SIGN_IN="identity")) == system
    assert login.cached(settings(SIGN_IN="identity", SP_APP_ID=APP)) == assigned


def seen_secrets(secret: str) -> list[str]:
    """Command lines, of all processes, that hold the secret."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if secret.encode() in file.read_bytes():
                found.append(str(file))
        except OSError:
            continue
    return found


@pytest.mark.azure
def test_a_service_principal_signs_in_once_and_its_secret_is_seen_nowhere(
    azure_clone: AzureClone,
) -> None:
    standin, secret = azure_clone.standin, azure_clone.standin.world.app_secret
    child = azure_clone.start("login", VERBOSE="1")
    seen: list[str] = []
    while child.poll() is None:
        seen += seen_secrets(secret)
        time.sleep(0.01)
    printed, _ = child.communicate()
    assert child.returncode == 0, printed
    assert seen == []
    assert f"signed in: service principal {APP}, subscription Slipway's stand-in" in printed
    assert "$ az login --service-principal --username" in printed
    assert secret not in printed
    mark = len(standin.world.calls)
    again = azure_clone.run("login", VERBOSE="1")
    assert "az login" not in again
    assert [
        call.line for call in standin.world.calls.since(mark) if "login.micro" in call.host
    ] == []
    for file in azure_clone.path.rglob("*"):
        if file.is_file() and file.name != ".env":
            assert secret.encode() not in file.read_bytes(), file


@pytest.mark.azure
def test_a_wrong_secret_is_two_lines_and_no_secret(azure_clone: AzureClone) -> None:
    azure_clone.save(SP_APP_SECRET="not-the-secret-at-all")
    printed = azure_clone.run("login", code=2)
    assert "AADSTS7000215: Invalid client secret provided" in printed
    assert "SP_APP_SECRET" in printed
    assert "not-the-secret" not in printed
    assert "Traceback" not in printed
    azure_clone.save(SP_APP_SECRET=azure_clone.standin.world.app_secret)
    assert "signed in" in azure_clone.run("login")


@pytest.mark.azure
def test_a_verb_with_several_parts_is_refused_once(azure_clone: AzureClone) -> None:
    azure_clone.run("provision")
    azure_clone.az("logout")
    printed = azure_clone.run("status", SP_APP_SECRET="not-the-secret-at-all", VERBOSE="1")
    assert printed.count("cannot be read") == 2
    assert printed.count("signing in to Azure") == 1
    assert printed.count("$ az login") == 1


@pytest.mark.azure
def test_another_tenant_and_another_subscription_are_named(azure_clone: AzureClone) -> None:
    other = "99999999-0000-4000-8000-000000000000"
    azure_clone.save(SUBSCRIPTION_ID=other)
    printed = azure_clone.run("login", code=2)
    assert f"SUBSCRIPTION_ID={other} is not among the subscriptions of this account" in printed
    assert SUBSCRIPTION in printed
    azure_clone.save(SUBSCRIPTION_ID=SUBSCRIPTION, TENANT_ID=other)
    assert "check TENANT_ID" in azure_clone.run("login", code=2)


class Host(BaseHTTPRequestHandler):
    """What gives a CI job its token: GitHub's service to GET, Azure DevOps' to POST."""

    def give(self, field: str, **expected: str) -> None:
        query = dict(parse_qsl(urlsplit(self.path).query))
        right = self.headers["Authorization"] == "Bearer of-the-job" and query == expected
        self.send_response(200 if right else 403)
        self.end_headers()
        self.wfile.write(json.dumps({field: "the token"}).encode())

    def do_GET(self) -> None:
        self.give("value", run="1", audience=login.AUDIENCE)

    def do_POST(self) -> None:
        self.give("oidcToken", **{"api-version": "7.1", "serviceConnectionId": "c-1"})

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def host() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("bearer", ["of-the-job", "of-another"])
def test_github_and_azure_devops_are_asked_for_the_jobs_token(host: str, bearer: str) -> None:
    """Sources: GitHub, "OpenID Connect reference"; Azure DevOps REST, "Oidctoken - Create"."""
    github = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{host}/token?run=1",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": bearer,
    }
    devops = {
        "SYSTEM_OIDCREQUESTURI": f"{host}/oidctoken",
        "SYSTEM_ACCESSTOKEN": bearer,
        "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID": "c-1",
    }
    for environ in (github, devops):
        if bearer == "of-the-job":
            assert login.federated_token(environ) == "the token"
        else:
            with pytest.raises(SlipwayError, match=r"127.0.0.1 gave no token .* \(HTTP 403\)"):
                login.federated_token(environ)


@pytest.mark.azure
def test_a_ci_job_signs_in_with_its_own_token(azure_clone: AzureClone, tmp_path: Path) -> None:
    world = azure_clone.standin.world
    issuer, subject = (
        "https://token.actions.githubusercontent.com",
        "repo:us/it:ref:refs/heads/main",
    )
    app = directory(world).application(APP)
    assert app is not None
    azure_clone.settings.pop("SP_APP_SECRET")
    azure_clone.save()
    claims = {
        "iss": issuer,
        "sub": subject,
        "aud": login.AUDIENCE,
        "nbf": time.time() - 10,
        "exp": time.time() + 600,
    }
    token = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "RS256"}, claims, "s"))
    file = tmp_path / "token"
    file.write_text(token)
    printed = azure_clone.run("login", code=2, AZURE_FEDERATED_TOKEN_FILE=str(file))
    assert "federated credential for this CI job's issuer and subject" in printed
    app.federated.add((issuer, subject))
    printed = azure_clone.run("login", VERBOSE="1", AZURE_FEDERATED_TOKEN_FILE=str(file))
    assert "federated token of the CI job" in printed
    assert token not in printed
    assert f"service principal {APP}" in printed


@pytest.mark.azure
def test_a_machine_signs_in_as_itself(azure_clone: AzureClone) -> None:
    world = azure_clone.standin.world
    machine = directory(world).add_identity("vm", "/subscriptions/x/vm")
    from tests.azure.standin.access import grant

    grant(world, machine.object_id, "Contributor", f"/subscriptions/{SUBSCRIPTION}")
    directory(world).machine = machine.object_id
    azure_clone.save(SIGN_IN="identity")
    azure_clone.settings.pop("SP_APP_ID")
    azure_clone.save()
    assert "signed in: managed identity" in azure_clone.run("login")


@pytest.mark.azure
def test_a_person_signs_in_with_a_code(azure_clone: AzureClone) -> None:
    for name in ("SP_APP_ID", "SP_APP_SECRET"):
        azure_clone.settings.pop(name)
    azure_clone.save()
    printed = azure_clone.run("what_if", code=2)
    assert "nobody is signed in to Azure here" in printed
    assert "run `make login`" in printed
    azure_clone.standin.world.faults.trouble("device code expired", 1)
    printed = azure_clone.run("login", code=2)
    assert "enter the code" in printed
    assert "error: az login: AADSTS70019" in printed
    assert "mend: run `make login`" in printed
    printed = azure_clone.run("login")
    assert "enter the code" in printed
    assert "signed in: user someone@slipway.example" in printed


@pytest.mark.azure
def test_throttling_and_a_broken_line_are_waited_out(azure_clone: AzureClone) -> None:
    faults = azure_clone.standin.world.faults
    busy = Refused(429, "TooManyRequests", "Slow down.", headers={"Retry-After": "1"})
    faults.add(Fault("GET https://management.azure.com/subscriptions", busy, times=2))
    faults.add(Fault(TOKEN_REQUEST, Answer(503, {"error": "temporarily_unavailable"}), times=1))
    assert "signed in" in azure_clone.run("login")


@pytest.mark.azure
def test_an_expired_login_is_renewed_by_itself(azure_clone: AzureClone) -> None:
    azure_clone.run("login")
    # What az keeps is no longer taken: another secret has been made for the application.
    app = directory(azure_clone.standin.world).application(APP)
    assert app is not None
    app.secret = "the-new-secret-of-the-app"
    azure_clone.save(SP_APP_SECRET=app.secret)
    cache = azure_clone.home / ".azure" / "msal_token_cache.json"
    cache.unlink()
    printed = azure_clone.run("login")
    assert "signing in to Azure (service principal)" in printed
    assert "signed in" in printed


@pytest.mark.azure
def test_ctrl_c_ends_az_too(azure_clone: AzureClone) -> None:
    azure_clone.standin.world.faults.add(Fault(TOKEN_REQUEST, delay=30))
    child = azure_clone.start("login")
    group = azure_clone.home

    def running() -> list[int]:
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"HOME={group}".encode() in file.read_bytes():
                    found.append(int(file.parent.name))
            except OSError:
                continue
        return found

    deadline = time.monotonic() + 20
    while len(running()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(running()) >= 2
    time.sleep(1)
    os.kill(child.pid, 2)
    printed, _ = child.communicate(timeout=20)
    assert child.returncode == 130, printed
    assert "interrupted" in printed
    assert running() == []
