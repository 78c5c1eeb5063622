"""Every fault of the table against the verbs it can hit.

The verb ends with the code and the words that the table has, leaves nothing half done, and succeeds
when it is called again once the fault is gone. CI sees every fault once and every verb once;
`make test-full` all pairs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure import faults
from tests.azure.bench import Bench
from tests.azure.conftest import make_clone
from tests.azure.faults import FAULTS, Fault, Hit
from tests.azure.ml_clone import make_ml_clone
from tests.azure.scenes import IN_A_WORKSPACE, SCENES, WITH_CONTAINERS
from tests.azure.standin.standin import StandIn, has_docker

PAGE = Path(__file__).parents[2] / "docs" / "azure.md"
#: A verb under a fault ends within, in seconds; what it waits for is bounded by less.
LIMIT = 420


def room(verb: str) -> str:
    """Which bench a verb is tried on."""
    if verb in WITH_CONTAINERS:
        return "containers"
    return "workspace" if verb in IN_A_WORKSPACE else "subscription"


def cases() -> Iterator[object]:
    """Each pair with its marks."""
    for fault, hit, verb in sorted(faults.pairs(), key=lambda pair: room(pair[2])):
        marks = [pytest.mark.azure]
        if verb not in hit.daily.split():
            marks.append(pytest.mark.slow)
        if room(verb) == "containers":
            marks.append(pytest.mark.docker)
        name = f"{fault.name}-{verb}".replace(" ", "_")
        yield pytest.param(fault, hit, verb, id=name, marks=marks)


def _bench(kind: str, root: Path, folder: Path) -> Iterator[Bench]:
    docker = kind == "containers" and has_docker()
    standin = StandIn(folder / "standin", root, docker=docker)
    make = make_ml_clone if kind == "workspace" else make_clone
    try:
        clone = make(root, folder / "clone", standin)
        clone.save(GRACE_SECONDS="1", LOG_WAIT="30", LOAD_DURATION="2", LOAD_USERS="2")
        yield Bench(clone)
    finally:
        standin.close()


@pytest.fixture(scope="module")
def subscription(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """An empty subscription."""
    yield from _bench("subscription", root, tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def workspace(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A workspace, whose runs are processes."""
    yield from _bench("workspace", root, tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def containers(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """An empty subscription where containers run."""
    yield from _bench("containers", root, tmp_path_factory.mktemp("faults"))


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The bench of the test's verb, mended before and after."""
    found: Bench = request.getfixturevalue(room(request.getfixturevalue("verb")))
    found.mend()
    yield found
    found.mend()


def call(bench: Bench, verb: str, environ: dict[str, str]) -> tuple[int, str, float]:
    """Call the verb; its exit code, what it printed and the seconds it took."""
    began = time.monotonic()
    module = (SCENES[verb].module or verb).replace("-", "_")
    child = bench.clone.start(module, **{"TMPDIR": str(bench.scratch), **environ, **bench.around})
    try:
        printed, _ = child.communicate(timeout=LIMIT)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    return child.returncode, printed, time.monotonic() - began


def is_plain(bench: Bench, printed: str) -> None:
    """No traceback, no secret, no wall of text."""
    assert "Traceback" not in printed
    assert "VERBOSE=1" not in printed, printed
    secrets = {bench.world.app_secret, *bench.world.keys.values(), *bench.settings.values()}
    for secret in {bench.world.app_secret, *bench.world.keys.values()} & secrets:
        assert len(secret) < 8 or secret not in printed
    for line in printed.splitlines():
        assert len(line) < 1000, line


def failed_plainly(bench: Bench, hit: Hit, verb: str, printed: str) -> None:
    """The message and the mend, on the terminal and in outcome.json."""
    if verb == "doctor":
        told = printed
    else:
        # One, which is not a line of the log that it shows.
        _, *errors = re.split("^error: ", printed, flags=re.MULTILINE)
        assert len(errors) == 1, printed
        told = errors[0]
        assert "mend: " in told, printed
    said, _, mend = told.partition("mend: ")
    if verb == "doctor":
        mend = told
    assert faults.holds(said, hit.says), printed
    assert faults.holds(mend, hit.mend), printed
    outcome = json.loads((bench.clone.folder / "outcome.json").read_text())
    if outcome["verb"] == (SCENES[verb].module or verb):
        assert (outcome["outcome"], outcome["code"]) == ("failed", hit.code)
        assert faults.holds(outcome["mend"], hit.mend)
    record = SCENES[verb].record
    if record:
        assert not (bench.clone.folder / f"{record}.json").exists()


@pytest.mark.parametrize(("fault", "hit", "verb"), cases())
def test_a_fault_is_told_plainly_and_the_verb_succeeds_when_called_again(
    bench: Bench, fault: Fault, hit: Hit, verb: str
) -> None:
    scene = SCENES[verb]
    environ = dict(scene.ready(bench))
    fault.inject(bench)
    code, printed, _ = call(bench, verb, environ)
    assert code == hit.code, printed
    is_plain(bench, printed)
    assert bench.leftovers() == []
    if code == 0:
        assert faults.holds(printed, hit.says), printed
    else:
        failed_plainly(bench, hit, verb, printed)
        bench.mend()
        scene.unharmed(bench)
        code, printed, _ = call(bench, verb, environ)
        assert code == 0, printed
    scene.done(bench)


def test_ci_sees_every_fault_and_every_verb() -> None:
    daily = [(fault.name, verb) for fault, hit, verb in faults.pairs() if verb in hit.daily.split()]
    assert {name for name, _ in daily} == {fault.name for fault in FAULTS}
    assert {verb for _, verb in daily} == set(SCENES)
    for _, hit, _ in faults.pairs():
        assert set(hit.daily.split()) <= set(hit.verbs.split())


def test_the_page_has_the_table() -> None:
    _, _, rest = PAGE.read_text("utf-8").partition("<!-- faults -->\n")
    table, end, _ = rest.partition("<!-- /faults -->")
    assert end
    assert table == f"{faults.page()}\n", f"docs/azure.md should hold:\n{faults.page()}"
