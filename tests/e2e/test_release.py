"""`make all` and what follows it, as a user would see it: real make, MLflow, HTTP and containers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from typing import Any

import pytest

from scripts.records import STAGES
from tests import rooms
from tests.e2e.conftest import Client, Clone, clients, reachable
from tests.records_schema import validate_folder


def score(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{url}/score", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def versions(clone: Clone) -> list[int]:
    from scripts.platforms.local.tracking import MlflowTracking

    name = clone.records["register"]["model_name"]
    return [item.version for item in MlflowTracking(clone.path).versions(name)]


def total(found: list[Client]) -> tuple[int, list[str]]:
    """Answers of all clients, and whatever failed."""
    return sum(client.answered for client in found), [
        failure for client in found for failure in client.failures
    ]


def a_release(clone: Clone) -> None:
    """`make all` on a fresh clone, then nothing to do."""
    printed = clone.make("all")
    assert [line for line in clone.stages(printed) if line in STAGES] == list(STAGES)
    folder = clone.path / "build" / "local"
    assert set(validate_folder(folder)) >= {f"{stage}.json" for stage in STAGES}
    assert clone.stages(clone.make("all")) == []
    assert "<html" in (folder / "report.html").read_text("utf-8")


def a_better_release_and_back(clone: Clone, sample: dict[str, Any]) -> None:
    """Deploys and rolls back under clients that never retry: none of them notices."""
    with reachable(clone) as url, clients(url, sample) as found:
        printed = clone.make("deploy", "MODEL_VERSION=1", "FORCE=1")
        assert "deploy" in clone.stages(printed)
        printed = clone.make("train", "PARAMS=alpha=0.01")
        assert clone.stages(printed) == ["train"]
        clone.make("all", GATE_MARGIN="0")
        assert clone.records["deploy"]["version"] == 2, clone.records["evaluate"]
        assert "rolled back" in clone.make("rollback")
        assert clone.records["deploy"]["version"] == 1
    answered, failures = total(found)
    assert failures == []
    assert answered > 50
    # The version that was rolled back stays away, and what judged it is done anew.
    printed = clone.make("all")
    assert [name for name in clone.stages(printed) if name in STAGES] == ["smoke", "load", "report"]
    assert clone.records["deploy"]["version"] == 1
    clone.make("deploy", "FORCE=1")
    assert clone.records["deploy"]["version"] == 2
    assert versions(clone) == [2, 1]


def write_shrunk_room(clone: Clone) -> None:
    """The regressor with a first parameter so poor that a second run is sure to beat it."""
    rooms.write_room(
        clone.path, estimator=rooms.REGRESSOR_ESTIMATOR.replace('"alpha": 1.0', '"alpha": 5000.0')
    )


def test_a_release_in_processes(processes: Clone) -> None:
    write_shrunk_room(processes)
    a_release(processes)
    url = processes.records["deploy"]["url"]
    a_better_release_and_back(processes, {"data": [[12.5, 70.0]]})
    printed = processes.make("status")
    assert "version 2" in printed
    processes.make("down")
    with pytest.raises(OSError, match="refused"):
        score(url, {"data": [[12.5, 70.0]]})
    # Records can be lost: what is real is found again, and nothing is registered twice.
    processes.make("clean")
    processes.make("image")
    assert versions(processes)[-1] == 1


@pytest.mark.docker
def test_a_release_in_containers(containers: Clone, root: Any) -> None:
    write_shrunk_room(containers)
    a_release(containers)
    assert containers.records["image"]["image"]["size_bytes"] < 350e6
    a_better_release_and_back(containers, {"data": [[12.5, 70.0]]})
    label = f"label=slipway.clone={containers.records['image']['image']['labels']['slipway.clone']}"
    for kind in (["ps", "--all"], ["network", "ls"], ["volume", "ls"], ["image", "ls"]):
        assert docker(*kind, "--quiet", "--filter", label), kind
    containers.make("distclean", "CONFIRM=1")
    for kind in (["ps", "--all"], ["network", "ls"], ["volume", "ls"], ["image", "ls"]):
        assert not docker(*kind, "--quiet", "--filter", label), kind
    assert not (containers.path / "build" / "mlflow").exists()


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def test_a_classifier_of_strings_with_missing_values(processes: Clone) -> None:
    rooms.weather_room(processes.path)
    a_release(processes)
    url = processes.records["deploy"]["url"]
    row = {"sky": None, "pressure": None, "wind": 3}
    answer = score(
        url, {"data": [row, {**row, "sky": "fog", "pressure": 980}], "probabilities": True}
    )
    assert set(answer["result"]) <= {"yes", "no"}
    assert answer["classes"] == ["no", "yes"]
    for probabilities in answer["probabilities"]:
        assert sum(probabilities) == pytest.approx(1)
    a_refused_load(processes)


def a_refused_load(clone: Clone) -> None:
    """The report is made and tells of it, and the end is the failure; then all is well again."""
    printed = clone.make("all", code=2, LOAD_P95_MS="0.001")
    assert "Error 3" in printed
    assert clone.stages(printed) == ["load", "report"]
    records = clone.records
    assert "load" not in records
    assert records["load.failed"]["code"] == 3
    assert (records["outcome"]["verb"], records["outcome"]["code"]) == ("load", 3)
    assert records["load.failed"]["p95_ms"] > 0.001
    page = (clone.path / "build" / "local" / "report.html").read_text("utf-8")
    assert "0.001" in page
    assert validate_folder(clone.path / "build" / "local")
    clone.make("all")
    assert "load.failed" not in clone.records


def interrupt(clone: Clone, stage: str, sent: signal.Signals) -> None:
    """Start `make all` and signal its whole process group as soon as `stage` has begun."""
    child = clone.start("all")
    assert child.stdout is not None
    printed = []
    for line in child.stdout:
        printed.append(line)
        if line.startswith(f"▸ {stage}"):
            time.sleep(0.4)
            os.killpg(child.pid, sent)
            break
    else:
        pytest.fail(f"{stage} did not begin:\n{''.join(printed)}")
    rest, _ = child.communicate(timeout=120)
    assert child.returncode != 0, "".join(printed) + rest
    assert "Traceback" not in rest


def killed_at_every_stage(clone: Clone) -> None:
    rooms.write_room(clone.path)
    kinds = [signal.SIGKILL, signal.SIGINT, signal.SIGTERM]
    for at, stage in enumerate(STAGES):
        interrupt(clone, stage, kinds[at % len(kinds)])
    clone.make("all")
    assert validate_folder(clone.path / "build" / "local")
    assert not [name for name in clone.records if name.endswith(".failed")]
    assert versions(clone) == [1]
    with reachable(clone) as url:
        answer = score(url, {"data": [[12.5, 70.0]]})
    assert len(answer["result"]) == 1


def test_killed_at_every_stage_and_run_again(processes: Clone) -> None:
    killed_at_every_stage(processes)


@pytest.mark.docker
@pytest.mark.slow
def test_killed_at_every_stage_in_containers(containers: Clone) -> None:
    killed_at_every_stage(containers)


def test_two_at_once_do_the_work_once(processes: Clone) -> None:
    rooms.write_room(processes.path)
    first = processes.start("register")
    second = processes.start("register")
    printed = [child.communicate(timeout=300)[0] for child in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], printed
    ran = sorted((processes.stages(text) for text in printed), key=len)
    assert ran == [[], ["data", "train", "evaluate", "register"]]
    assert any("waiting for make register" in text for text in printed)
    assert versions(processes) == [1]
