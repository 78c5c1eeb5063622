"""A deployer that is killed: what served serves on, and the next call finishes or clears away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict

import pytest

from scripts.platforms import starting
from tests.scripts.deploy.clients import Clients, wait_until
from tests.scripts.deploy.conftest import Bench
from tests.scripts.deploy.releases import ROOT

LOCAL = "scripts.platforms.local"
PROCESS = [
    f"{LOCAL}.control:Control.ask+",  # the first question, before anything happened
    "scripts.platforms.starting:prove_start",
    "scripts.platforms.starting:prove_start+",
]
CONTAINER = ["scripts.platforms.starting:prove_start", f"{LOCAL}.front:Front.serve+"]
CONTAINER_SLOW = [
    f"{LOCAL}.containers:ContainerService._create+",
    "scripts.platforms.starting:prove_start+",
    f"{LOCAL}.front:Front.serve",
    f"{LOCAL}.front:Front.drain+",
    f"{LOCAL}.containers:ContainerService._prune",
]
POINTS = [
    *(pytest.param("process", point) for point in PROCESS),
    *(pytest.param("container", point, marks=pytest.mark.docker) for point in CONTAINER),
    *(
        pytest.param("container", point, marks=[pytest.mark.docker, pytest.mark.slow])
        for point in CONTAINER_SLOW
    ),
]


def deploy_and_die(bench: Bench, name: str, point: str) -> None:
    release = {**asdict(bench.fleet[name]), "bundle": os.fspath(bench.fleet[name].bundle)}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.scripts.deploy.killed",
            bench.kind,
            bench.root,
            str(bench.port),
            json.dumps(release),
            point,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(("kind", "point"), POINTS)
def test_a_killed_deployer_costs_no_request(
    kind: str, point: str, make_bench: Callable[..., Bench]
) -> None:
    bench = make_bench(kind)
    bench.deploy("v1")
    with Clients(bench.service.endpoint().url) as clients:
        deploy_and_die(bench, "v2", point)
        clients.wait_for_answers(20)
        assert len(bench.serving) == 1
        bench.deploy("v3")
    assert clients.failures == []
    assert bench.serving == [3]
    wait_until(lambda: len(bench.running()) == 1)


@pytest.mark.parametrize("point", ["scripts.platforms.starting:prove_start"])
def test_a_killed_first_deployer_leaves_nothing_in_the_way(bench: Bench, point: str) -> None:
    deploy_and_die(bench, "v1", point)
    assert bench.serving == []
    assert bench.deploy("v1").healthy
    wait_until(lambda: len(bench.running()) == 1)


def test_an_interrupt_takes_back_what_was_begun(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.deploy("v1")

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(starting, "prove", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bench.deploy("v2")
    assert bench.serving == [1]
    wait_until(lambda: len(bench.running()) == 1)
    assert bench.deploy("v2").version == 2
