"""What only containers have: the front, their hardening, and what the engine does to them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.errors import SlipwayError, UsageError
from scripts.platforms.base import Release
from scripts.platforms.local.containers import ContainerService
from scripts.platforms.local.processes import ProcessService
from tests.scripts.deploy.clients import Clients, wait_until
from tests.scripts.deploy.conftest import INSIDE, Bench
from tests.scripts.deploy.releases import ROWS, predict, sample_of

pytestmark = pytest.mark.docker


@pytest.fixture
def containers(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench("container")


def service_of(bench: Bench) -> ContainerService:
    assert isinstance(bench.service, ContainerService)
    return bench.service


def container_of(bench: Bench, name: str) -> Any:
    service = service_of(bench)
    return service.here.client.containers.get(f"slipway-{service.here.clone}-{name}")


def ask(url: str, headers: Mapping[str, str] = {}) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    sent = {"Content-Type": "application/json", **headers}
    connection.request("POST", "/score", json.dumps({"data": ROWS}), sent)
    return connection.getresponse()


def test_containers_may_do_nothing_but_serve(containers: Bench) -> None:
    containers.deploy("v1", SCORING_KEY="swordfish")
    for name in ("front", "service-1"):
        found = container_of(containers, name)
        host = found.attrs["HostConfig"]
        assert found.attrs["Config"]["User"] not in ("", "0", "root")
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert host["LogConfig"]["Config"]["max-size"]
        assert "swordfish" not in json.dumps(found.labels)
    assert not container_of(containers, "service-1").attrs["HostConfig"]["PortBindings"]
    (bindings,) = container_of(containers, "front").attrs["HostConfig"]["PortBindings"].values()
    assert [each["HostIp"] for each in bindings] == ["127.0.0.1"]


def test_the_front_passes_requests_on_as_they_are(containers: Bench) -> None:
    containers.deploy("v1")
    answer = ask(containers.service.endpoint().url, {"X-Request-Id": "from-the-caller"})
    assert answer.status == 200
    assert answer.headers["X-Request-Id"] == "from-the-caller"
    assert json.loads(answer.read()) == {"result": predict(1)}


def test_the_front_says_in_json_that_nothing_serves(containers: Bench) -> None:
    containers.deploy("v1")
    url = containers.service.endpoint().url
    container_of(containers, "service-1").stop()
    wait_until(lambda: ask(url).status == 503)
    answer = ask(url)
    assert answer.headers["Content-Type"] == "application/json"
    assert int(answer.headers["Retry-After"]) > 0
    assert json.loads(answer.read())["error"]["code"] == "unavailable"


def test_a_crashed_front_comes_back_serving_the_same(containers: Bench) -> None:
    containers.deploy("v1")
    containers.deploy("v2")
    # The worker's death ends the front, as a crash would.
    container_of(containers, "front").exec_run(
        ["sh", "-c", "kill -9 $(cat /proc/1/task/1/children)"]
    )
    wait_until(lambda: container_of(containers, "front").attrs["RestartCount"] == 1)
    wait_until(lambda: containers.serving == [2])
    with Clients(containers.service.endpoint().url) as clients:
        containers.deploy("v3")
    assert clients.failures == []
    assert clients.versions == {2, 3}


def test_a_crashed_service_is_started_again(containers: Bench) -> None:
    containers.deploy("v1")
    container_of(containers, "service-1").exec_run(
        ["/opt/venv/bin/python", "-c", "import os; os.kill(1, 15)"]
    )
    wait_until(lambda: container_of(containers, "service-1").attrs["RestartCount"] == 1)
    wait_until(lambda: containers.serving == [1])


def test_a_removed_front_is_made_again(containers: Bench) -> None:
    containers.deploy("v1")
    container_of(containers, "front").remove(force=True)
    assert containers.serving == []
    current = containers.service.current(containers.fleet["v1"])
    assert current is not None
    assert current.healthy
    assert containers.serving == [1]


def test_a_port_published_by_another_container_is_named(
    containers: Bench, make_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    other = make_bench("container", tmp_path / "other")
    other.deploy("v1")
    name = container_of(other, "front").name
    with pytest.raises(UsageError, match=f"SCORING_PORT={other.port} is taken by .*{name}"):
        containers.deploy("v1", SCORING_PORT=other.port)
    assert other.serving == [1]


def test_a_removed_image_is_named(containers: Bench) -> None:
    release = containers.fleet["v1"]
    assert release.image is not None
    gone = Release(
        release.model_name,
        release.version,
        release.inputs,
        release.bundle,
        type(release.image)("sha256:" + "0" * 64, "gone", 0, {}),
    )
    with pytest.raises(UsageError, match="make image FORCE=1") as failed:
        containers.service.deploy(gone, sample_of(release))
    assert "is gone" in failed.value.message


def test_a_release_without_an_image_is_not_deployed(containers: Bench) -> None:
    release = containers.fleet["v1"]
    bare = Release(release.model_name, release.version, release.inputs, release.bundle, None)
    with pytest.raises(UsageError, match="without an image"):
        containers.service.deploy(bare, sample_of(release))


def test_containers_and_processes_take_over_from_each_other(
    containers: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    if INSIDE:
        pytest.skip("not run: in the toolbox, processes and containers have different ports")
    processes = ProcessService(containers.root, containers.service.settings)
    release = containers.fleet["v1"]
    try:
        processes.deploy(release, sample_of(release))
        with pytest.raises(SlipwayError, match="ended with code"):
            containers.deploy("broken")
        assert processes.history()[0].healthy, "it serves on until its successor is proven"
        assert containers.deploy("v2").healthy
        assert "containers take over" in capsys.readouterr().out
        assert not processes.is_running()
        assert processes.deploy(release, sample_of(release)).healthy
        assert "a process takes over" in capsys.readouterr().out
        assert containers.serving == []
        assert containers.service.stop() == 1, "whatever of the clone serves"
    finally:
        processes.stop()
