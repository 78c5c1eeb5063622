"""What users and clients see of deployments, the same whether they are containers or processes."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from scripts.errors import SlipwayError, UsageError
from scripts.platforms.base import serving
from scripts.proof import is_healthy
from tests.scripts.deploy.clients import Clients, wait_until
from tests.scripts.deploy.conftest import INSIDE, KINDS_SLOW, Bench, free_port
from tests.scripts.deploy.releases import ROWS, predict


def score(url: str, headers: dict[str, str] | None = None, rows: Any = ROWS) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    body = json.dumps({"data": rows})
    connection.request(
        "POST", "/score", body, {"Content-Type": "application/json", **(headers or {})}
    )
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    return response.status, content


def test_a_first_deployment_serves(bench: Bench) -> None:
    with pytest.raises(UsageError, match="nothing is deployed"):
        bench.service.endpoint()
    deployment = bench.deploy("v1")
    assert (deployment.number, deployment.version, deployment.previous) == (1, 1, None)
    assert deployment.serving
    assert deployment.healthy
    assert deployment.kind == bench.kind
    assert deployment.url == f"http://127.0.0.1:{bench.port}"
    endpoint = bench.service.endpoint()
    assert score(endpoint.url) == (200, {"result": predict(1)})
    wait_until(lambda: any('"path":"/score"' in line for line in bench.service.logs()))


def test_no_request_fails_while_deployments_change(bench: Bench) -> None:
    bench.deploy("v1")
    with Clients(bench.service.endpoint().url) as clients:
        bench.deploy("v2")
        clients.wait_for_answers(20)
        bench.deploy("v3")
        clients.wait_for_answers(20)
        bench.service.rollback()
    assert clients.failures == []
    assert clients.versions == {1, 2, 3}
    assert bench.serving == [2]


def test_rollbacks_go_down_the_stack_of_the_last_three(bench: Bench) -> None:
    for name in ("v1", "v2", "v3", "v4"):
        bench.deploy(name)
    assert bench.numbers == [4, 3, 2]
    first = bench.service.rollback()
    assert (first.number, first.version, first.previous, first.rejected) == (5, 3, 2, 4)
    second = bench.service.rollback()
    assert (second.number, second.version, second.previous, second.rejected) == (6, 2, 1, 4)
    with pytest.raises(UsageError, match="deployment 1, the previous one, is no longer"):
        bench.service.rollback()
    assert bench.serving == [2]
    # A newer version clears what was rejected, and can itself be rolled back.
    fifth = bench.deploy("v5")
    assert (fifth.number, fifth.previous, fifth.rejected) == (7, 6, None)
    assert bench.service.rollback().version == 2


def test_nothing_deployed_cannot_be_rolled_back(bench: Bench) -> None:
    with pytest.raises(UsageError, match="nothing is deployed"):
        bench.service.rollback()


@pytest.mark.parametrize(
    ("name", "reason", "logged"),
    [
        ("broken", "ended with code 1", "sha256"),
        ("wrong", "answers the sample request wrongly", "listening"),
    ],
)
def test_a_failed_start_leaves_the_old_one_serving(
    bench: Bench, name: str, reason: str, logged: str
) -> None:
    bench.deploy("v1")
    with (
        Clients(bench.service.endpoint().url) as clients,
        pytest.raises(SlipwayError) as failed,
    ):
        bench.deploy(name)
    assert failed.value.exit_code == 1
    assert reason in failed.value.message
    assert "deployment 1 (version 1) serves on" in failed.value.message
    assert logged in failed.value.message
    assert clients.failures == []
    assert clients.versions == {1}
    assert bench.numbers == [1]
    assert bench.deploy("v2").version == 2


@pytest.mark.parametrize("bench", KINDS_SLOW, indirect=True)
def test_a_failed_first_start_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(SlipwayError, match="nothing serves"):
        bench.deploy("broken")
    assert bench.service.history() == []


def test_what_serves_already_is_recognised(bench: Bench) -> None:
    release = bench.fleet["v1"]
    assert bench.service.current(release) is None
    bench.deploy("v1")
    found = bench.service.current(release)
    assert found is not None
    assert found.number == 1
    assert bench.service.current(bench.fleet["v2"]) is None
    assert bench.with_settings(MAX_ROWS=7).current(release) is None
    assert bench.with_settings(SCORING_KEY="other").current(release) is None
    assert bench.with_settings(SCORING_PORT=free_port()).current(release) is None


def test_the_key_is_asked_for_and_never_shown(bench: Bench) -> None:
    bench.deploy("v1", SCORING_KEY="swordfish")
    endpoint = bench.with_settings(SCORING_KEY="swordfish").endpoint()
    assert score(endpoint.url)[0] == 401
    assert score(endpoint.url, dict(endpoint.headers))[0] == 200
    assert "swordfish" not in repr(endpoint)
    assert "swordfish" not in repr(bench.service.history())
    for path in bench.root.rglob("*"):
        assert not path.is_file() or b"swordfish" not in path.read_bytes(), path


@pytest.mark.parametrize("bench", KINDS_SLOW, indirect=True)
def test_a_rollback_restores_settings_but_not_the_old_key(bench: Bench) -> None:
    bench.deploy("v1", MAX_ROWS=2, SCORING_KEY="old")
    bench.deploy("v1", MAX_ROWS=50, SCORING_KEY="new")
    now = bench.with_settings(MAX_ROWS=50, SCORING_KEY="new")
    deployment = now.rollback()
    assert deployment.rejected is None, "the version itself was not rolled back"
    rows, url = [*ROWS, *ROWS], now.endpoint().url
    assert score(url, {"Authorization": "Bearer old"}, rows)[0] == 401
    assert score(url, {"Authorization": "Bearer new"}, rows)[0] == 422


def test_stopping_keeps_the_history(bench: Bench) -> None:
    bench.deploy("v1")
    bench.deploy("v2")
    url = bench.service.endpoint().url
    assert bench.service.stop() == 1
    assert bench.service.stop() == 0
    assert not is_healthy(url)
    assert bench.numbers == [2, 1]
    assert serving(bench.service) is None
    with pytest.raises(UsageError, match="nothing is deployed"):
        bench.service.endpoint()
    # Brought back, it is not its own predecessor.
    again = bench.deploy("v2")
    assert (again.number, again.previous) == (3, 1)


def test_a_taken_port_is_named(bench: Bench) -> None:
    if bench.kind == "container" and INSIDE:
        pytest.skip("not run: the host's ports cannot be taken from the toolbox")
    with socket.socket() as other:
        other.bind(("127.0.0.1", bench.port))
        other.listen()
        with pytest.raises(UsageError, match=f"SCORING_PORT={bench.port} is taken by pid"):
            bench.deploy("v1")
    assert bench.service.history() == []
    assert bench.deploy("v1").healthy


@pytest.mark.parametrize("bench", KINDS_SLOW, indirect=True)
def test_a_changed_port_moves_the_service(bench: Bench) -> None:
    bench.deploy("v1")
    port, before = free_port(), bench.service.endpoint().url
    deployment = bench.deploy("v2", SCORING_PORT=port)
    assert deployment.url == f"http://127.0.0.1:{port}"
    url = bench.with_settings(SCORING_PORT=port).endpoint().url
    assert score(url) == (200, {"result": predict(2)})
    assert url == before or not is_healthy(before)


@pytest.mark.parametrize("kind", KINDS_SLOW)
def test_two_clones_do_not_meet(kind: str, make_bench: Callable[..., Bench], tmp_path: Any) -> None:
    one, two = make_bench(kind, tmp_path / "one"), make_bench(kind, tmp_path / "two")
    one.deploy("v1")
    two.deploy("v2")
    assert (one.serving, two.serving) == ([1], [2])
    one.service.stop()
    assert (one.serving, two.serving) == ([], [2])
