"""Sign-in of the stand-in with az: secret, federated token, device code, machine, and what is refused."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.azure.standin.access import grant
from tests.azure.standin.directory import USER_NAME, access_token, directory
from tests.azure.standin.signin import EXCHANGE
from tests.azure.standin.standin import StandIn
from tests.azure.standin.world import APP, APP_OBJECT, SUBSCRIPTION, TENANT

pytestmark = pytest.mark.azure
ISSUER, SUBJECT = "https://token.example", "repo:kiln/kiln:ref:refs/heads/main"


class Az:
    """az with a folder of its own that has no login."""

    def __init__(self, standin: StandIn, home: Path) -> None:
        home.mkdir()
        self.environment = {"PATH": os.environ["PATH"], **standin.environment(home)}

    def __call__(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            ["az", *words], env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def login(self, code: int = 0, *, app: str = APP, tenant: str = TENANT, **how: str) -> str:
        words = [f"--{name.replace('_', '-')}={value}" for name, value in how.items()]
        principal = ("login", "--service-principal", "-u", app, "--tenant", tenant)
        return self(*principal, *words, code=code)


@pytest.fixture
def az(standin: StandIn, tmp_path: Path) -> Az:
    return Az(standin, tmp_path / "home")


def test_a_service_principal_signs_in_with_its_secret_only(az: Az, standin: StandIn) -> None:
    secret = standin.world.app_secret
    assert "AADSTS7000215" in az.login(1, password="wrong")
    nobody = "99999999-9999-4999-8999-999999999999"
    assert "AADSTS700016" in az.login(1, app=nobody, password=secret)
    # az asks for the tenant before it asks for a token.
    assert nobody in az.login(1, tenant=nobody, password=secret)
    standin.world.faults.trouble("secret expired", 1)
    assert "AADSTS7000222" in az.login(1, password=secret)
    (account,) = json.loads(az.login(password=secret))
    assert (account["id"], account["user"]["name"]) == (SUBSCRIPTION, APP)
    assert secret not in (standin.world.folder / "calls.jsonl").read_text()


def job_token(**changed: Any) -> str:
    """What a CI system gives its job; the signature is nobody's."""
    begin = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": SUBJECT,
        "aud": EXCHANGE,
        "nbf": begin,
        "exp": begin + 600,
        **changed,
    }
    parts = [{"alg": "RS256", "typ": "JWT", "kid": "1"}, claims]
    texts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts]
    return ".".join([*texts, "c2ln"])


def test_a_jobs_token_is_exchanged_if_it_is_the_one_expected(az: Az, standin: StandIn) -> None:
    assert "AADSTS700213" in az.login(1, federated_token=job_token())
    directory(standin.world).principals[APP_OBJECT].federated.add((ISSUER, SUBJECT))
    assert "AADSTS700212" in az.login(1, federated_token=job_token(aud="api://other"))
    late = {"nbf": time.time() - 2000, "exp": time.time() - 1000}
    assert "AADSTS700024" in az.login(1, federated_token=job_token(**late))
    assert SUBSCRIPTION in az.login(federated_token=job_token())


def test_a_person_signs_in_with_a_code_and_stays_signed_in(az: Az, standin: StandIn) -> None:
    standin.world.faults.trouble("device code expired", 1)
    az("login", "--use-device-code", code=1)
    printed = az("login", "--use-device-code")
    assert "https://microsoft.com/devicelogin" in printed
    assert USER_NAME in printed
    directory(standin.world).lifetime = 1
    az("account", "get-access-token", "--resource", "https://vault.azure.net")
    standin.world.faults.trouble("refresh token revoked", 1)
    assert "AADSTS50173" in az(
        "account", "get-access-token", "--resource", "https://storage.azure.com", code=1
    )


def test_a_machine_signs_in_by_its_identity(az: Az, standin: StandIn) -> None:
    assert "Identity not found" in az("login", "--identity", code=1)
    people = directory(standin.world)
    machine = people.add_identity("machine", "/a/machine")
    people.machine = machine.object_id
    assert "no subscriptions were found" in az("login", "--identity", code=1)
    grant(standin.world, machine.object_id, "Reader", f"/subscriptions/{SUBSCRIPTION}")
    az("login", "--identity")
    told = az("group", "create", "-n", "rg", "-l", "westeurope", code=1)
    assert "AuthorizationFailed" in told
    assert machine.object_id in told


def ask(standin: StandIn, token: str | None) -> tuple[int, str]:
    answer = requests.get(
        f"https://management.azure.com/subscriptions/{SUBSCRIPTION}?api-version=2022-12-01",
        headers={"Authorization": f"Bearer {token}"} if token else {},
        proxies={"https": standin.url},
        verify=str(standin.world.ca_file),
        timeout=20,
    )
    return answer.status_code, answer.json().get("error", {}).get("code", "")


def test_every_token_is_looked_at(standin: StandIn) -> None:
    world = standin.world
    people = directory(world)
    app = people.principals[APP_OBJECT]
    good, _ = access_token(world, app, "https://management.azure.com/")
    assert ask(standin, good) == (200, "")
    assert ask(standin, None) == (401, "AuthenticationFailed")
    assert ask(standin, "no.to.ken") == (401, "InvalidAuthenticationToken")
    assert ask(standin, good[:-4] + "AAAA") == (401, "InvalidAuthenticationToken")
    other, _ = access_token(world, app, "https://vault.azure.net")
    assert ask(standin, other) == (401, "InvalidAuthenticationTokenAudience")
    people.lifetime = -1
    old, _ = access_token(world, app, "https://management.azure.com/")
    assert ask(standin, old) == (401, "ExpiredAuthenticationToken")
