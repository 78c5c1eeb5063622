"""The supervisor where there is no engine: it outlives its caller, and its servers outlive it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from scripts.errors import SlipwayError
from scripts.platforms.local import control, pids
from scripts.platforms.local.supervisor import trim
from scripts.proof import is_healthy
from tests.scripts.deploy.clients import Clients, wait_until
from tests.scripts.deploy.conftest import Bench
from tests.scripts.deploy.releases import ROOT


@pytest.fixture
def processes(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench("process")


def tell(bench: Bench) -> control.Message:
    with control.Control(bench.root / "build" / "service") as supervisor:
        return supervisor.ask("tell")


def test_a_crashed_server_is_started_again(processes: Bench) -> None:
    processes.deploy("v1")
    server = tell(processes)["server"]
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: tell(processes)["server"] not in (None, server))
    wait_until(lambda: processes.serving == [1])
    assert len(processes.running()) == 1


def test_what_a_killed_supervisor_left_serves_until_the_next_deployment(processes: Bench) -> None:
    processes.deploy("v1")
    processes.deploy("v2")
    os.kill(tell(processes)["pid"], signal.SIGKILL)
    wait_until(lambda: not processes.service.is_running())
    assert processes.serving == [2]
    # A server that fails to start takes nothing from it either.
    with pytest.raises(SlipwayError, match=r"deployment 2 .* serves on"):
        processes.deploy("broken")
    assert processes.serving == [2]
    assert processes.service.rollback().version == 1
    assert processes.serving == [1]
    assert len(processes.running()) == 1


def test_what_a_killed_supervisor_left_can_be_stopped(processes: Bench) -> None:
    processes.deploy("v1")
    os.kill(tell(processes)["pid"], signal.SIGKILL)
    wait_until(lambda: not processes.service.is_running())
    assert processes.service.stop() == 1
    assert processes.running() == []


def test_a_process_that_got_the_number_of_a_server_is_left_alone(processes: Bench) -> None:
    processes.deploy("v1")
    processes.service.stop()
    state = processes.root / "build" / "service" / "state.json"
    found = json.loads(state.read_text())
    with subprocess.Popen(["sleep", "60"]) as stranger:
        found["servers"] = [{"pid": stranger.pid, "identity": "another time", "grace": 0.1}]
        state.write_text(json.dumps(found))
        assert processes.service.stop() == 0
        processes.deploy("v2")
        assert stranger.poll() is None
        stranger.kill()


def test_sigterm_stops_all(processes: Bench) -> None:
    processes.deploy("v1")
    supervisor = psutil.Process(tell(processes)["pid"])
    supervisor.terminate()
    wait_until(lambda: not processes.service.is_running() and processes.running() == [])
    assert not is_healthy(f"http://127.0.0.1:{processes.port}")
    assert processes.serving == []


def test_it_survives_its_caller_and_holds_nothing_of_it(processes: Bench, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        os.set_inheritable(held.fileno(), True)
        code = f"""
import json, sys
from pathlib import Path
from scripts.platforms.base import Release
from scripts.platforms.local.processes import ProcessService
from scripts.settings import Settings
bundle = Path({str(processes.fleet["v1"].bundle)!r})
sample = json.loads((bundle / "model" / "model.json").read_text())["sample"]
service = ProcessService(Path({str(processes.root)!r}), Settings(SCORING_PORT={processes.port}))
service.deploy(Release("adder", 1, "x", bundle, None), sample)
"""
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, close_fds=False)
    with lock.open("w") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert processes.serving == [1]
    supervisor = psutil.Process(tell(processes)["pid"])
    assert os.getsid(supervisor.pid) != os.getsid(0)
    assert supervisor.terminal() is None


def test_servers_see_no_setting_or_secret_of_the_caller(
    processes: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SP_APP_SECRET", "hidden")
    processes.deploy("v1")
    environ = psutil.Process(tell(processes)["server"]).environ()
    assert "SP_APP_SECRET" not in environ
    assert "SP_APP_SECRET" not in psutil.Process(tell(processes)["pid"]).environ()


def test_a_long_path_is_no_obstacle(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make_bench("process", tmp_path / ("long " * 20).strip() / "clone")
    bench.deploy("v1")
    with Clients(bench.service.endpoint().url, threads=2) as clients:
        bench.deploy("v2")
    assert clients.failures == []
    assert bench.service.stop() == 1


def test_a_damaged_state_is_named(processes: Bench) -> None:
    state = processes.root / "build" / "service" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{")
    with pytest.raises(SlipwayError, match=r"state\.json is damaged"):
        processes.deploy("v1")
    state.unlink()
    assert processes.deploy("v1").healthy


def test_a_removed_clone_takes_its_service_along(processes: Bench) -> None:
    processes.deploy("v1")
    supervisor = tell(processes)["pid"]
    shutil.rmtree(processes.root)
    wait_until(lambda: not psutil.pid_exists(supervisor) and processes.running() == [])
    assert not processes.root.exists()


def test_a_grown_log_is_set_aside_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    with log.open("ab", buffering=0) as server:
        server.write(b"first\n")
        trim(log, 100)
        assert log.read_bytes() == b"first\n"
        trim(log, 3)
        server.write(b"second\n")
    assert log.read_bytes() == b"second\n"
    assert (tmp_path / "service.log.1").read_bytes() == b"first\n"


def test_an_identity_is_that_of_one_process() -> None:
    mine = pids.identity(os.getpid())
    assert mine is not None
    assert pids.is_running(os.getpid(), mine)
    with subprocess.Popen(["sleep", "60"]) as child:
        assert pids.identity(child.pid) not in (None, mine)
        child.kill()
    assert pids.identity(child.pid) is None
