"""No secret is seen anywhere while a release is made: process list, logs, records, layers, calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.azure import secrets_seen
from tests.azure.conftest import AzureClone, make_clone
from tests.azure.ml_clone import make_ml_clone
from tests.azure.secrets_seen import Watch, known
from tests.azure.shipping import package, ship
from tests.azure.standin.standin import StandIn, has_docker

pytestmark = pytest.mark.azure

Make = Callable[..., AzureClone]


@pytest.fixture
def make(root: Path, tmp_path: Path) -> Iterator[Make]:
    """Makes a clone with a stand-in; what that leaves is below the test's folder."""
    standins = []

    def made(how: Callable[..., AzureClone], *, docker: bool = False) -> AzureClone:
        standins.append(StandIn(tmp_path / "standin", root, docker=docker))
        clone = how(root, tmp_path / "clone", standins[0])
        (clone.home / "tmp").mkdir(parents=True)
        return clone

    yield made
    for standin in standins:
        standin.close()


def told(clone: AzureClone, *verbs: str, **environ: str) -> str:
    """Run the verbs with all that they can tell; what they printed."""
    more = {"VERBOSE": "1", "TMPDIR": str(clone.home / "tmp"), **environ}
    return "".join(clone.run(verb, **more) for verb in verbs)


def assert_none(clone: AzureClone, watch: Watch, printed: str, least: set[str]) -> None:
    """No secret in any place; `least` must have been among what was looked for."""
    secrets = known(clone)
    for kind in least:
        assert any(kind in what for what in secrets), f"no {kind} was looked for: {sorted(secrets)}"
    assert any("scripts." in line for line in watch.processes)
    assert any("az" in line for line in watch.processes)
    assert sorted(watch.seen) == []
    assert [what for what, secret in secrets.items() if secret in printed] == []
    standin = clone.standin.world.folder
    # The blobs and the registry are read as they lie on the disk: snapshots, runs' logs, layers.
    places = [clone.path / "build", clone.home, *(p for p in standin.iterdir() if p.name != "ca")]
    assert secrets_seen.found_in(places, secrets) == []


def test_the_search_finds_what_is_there(make: Make, tmp_path: Path) -> None:
    import gzip
    import subprocess
    import sys
    import time

    clone = make(make_clone)
    secret = clone.standin.world.app_secret
    (tmp_path / "layer").write_bytes(gzip.compress(b"." + secret.encode()))
    (tmp_path / "log").write_text(f"said {secret}")
    found = secrets_seen.found_in([tmp_path / "layer", tmp_path / "log"], known(clone))
    assert len(found) == 2
    shown = [sys.executable, "-c", "import time; time.sleep(30)"]
    with Watch(clone) as watch:
        around = {**os.environ, "HOME": str(clone.home), "LEAK": secret}
        leaks = [
            subprocess.Popen([*shown, secret]),
            subprocess.Popen(shown, env=around),
        ]
        time.sleep(1.5)
        for leak in leaks:
            leak.kill()
            leak.wait()
    assert any("in the command line" in seen for seen in watch.seen)
    assert any("in the environment" in seen for seen in watch.seen)


def test_none_from_sign_in_to_a_place(make: Make) -> None:
    clone = make(make_clone)
    with Watch(clone) as watch:
        printed = told(clone, "login", "what_if", "provision", "doctor")
        assert_none(clone, watch, printed, {"application", "key1", "a token of az"})


def test_none_while_a_model_is_trained_judged_and_registered(make: Make) -> None:
    clone = make(make_ml_clone)
    with Watch(clone) as watch:
        printed = told(clone, "data", "train", "evaluate", "register", "publish_pipeline")
        assert_none(clone, watch, printed, {"application", "a token of az"})


@pytest.mark.docker
def test_none_from_the_image_to_a_service_that_answers(make: Make) -> None:
    clone = make(make_clone, docker=has_docker())
    clone.save(GRACE_SECONDS="1", LOG_WAIT="30", LOAD_DURATION="1", LOAD_USERS="2")
    with Watch(clone) as watch:
        printed = told(clone, "provision")
        package(clone, 1.0)
        printed += ship(clone)
        printed += told(clone, "deploy", "smoke", "load", "status", "logs", "down")
        assert_none(
            clone, watch, printed, {"application", "key1", "a token of az", "vault's secret"}
        )
