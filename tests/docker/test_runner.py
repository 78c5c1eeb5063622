"""docker/run.sh: where a verb runs, and what of the caller it sees there."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from .conftest import Clone

NO_ENGINE = "unix:///nowhere/docker.sock"


def test_an_unknown_runner_is_named_with_what_it_should_be(clone: Clone) -> None:
    done = clone.call("docker/run.sh", "true", code=2, RUNNER="docker")
    assert "RUNNER=docker should be auto, container, here or venv" in done.stderr


def test_without_an_engine_auto_is_venv_and_container_an_error(clone: Clone) -> None:
    where = clone.call("docker/run.sh", "--where", RUNNER="auto", DOCKER_HOST=NO_ENGINE)
    assert where.stdout == "venv\n"
    done = clone.call("docker/run.sh", "true", code=2, RUNNER="container", DOCKER_HOST=NO_ENGINE)
    assert "no Docker engine answers" in done.stderr
    assert "RUNNER=venv" in done.stderr


def test_the_runner_may_stand_in_the_env_file(clone: Clone) -> None:
    (clone.path / ".env").write_text("RUNNER='venv' # here\r\n")
    env = {key: value for key, value in os.environ.items() if key != "RUNNER"}
    assert clone.call("env", "-u", "RUNNER", "docker/run.sh", "--where", **env).stdout == "venv\n"


def test_here_runs_the_command_as_it_is(clone: Clone) -> None:
    script = 'echo "$SLIPWAY_ROOT|$SLIPWAY_ID|$SLIPWAY_ENGINE|$RUNNER|$PWD"; exit 7'
    done = clone.call(
        "docker/run.sh", "sh", "-c", script, code=7, RUNNER="here", DOCKER_HOST=NO_ENGINE
    )
    assert done.stdout == f"{clone.path}|{clone.id}|none|here|{clone.path}\n"


def test_a_missing_ca_bundle_is_named(clone: Clone) -> None:
    done = clone.call("docker/build.sh", "front", "docker", "x", code=2, EXTRA_CA="no/such.pem")
    assert "EXTRA_CA=no/such.pem: no such file" in done.stderr


def test_a_command_ends_when_its_caller_does(clone: Clone) -> None:
    ended = clone.path / "ended"
    script = f"docker/run.sh sh -c 'trap \"touch {ended.name}; exit\" TERM; sleep 20 & wait'; :"
    caller = clone.start("sh", "-c", script, RUNNER="here")
    time.sleep(0.5)
    caller.kill()
    _eventually(ended.exists)


@pytest.mark.docker
def test_a_container_has_the_tree_at_its_path_and_passes_the_exit_code(docked: Clone) -> None:
    script = 'echo "$PWD" >made; id -un; echo "$SLIPWAY_NETWORK $SLIPWAY_ENGINE $RUNNER"; exit 7'
    done = docked.call("docker/run.sh", "sh", "-c", script, code=7, RUNNER="container")
    made = docked.path / "made"
    assert made.read_text() == f"{docked.path}\n"
    assert made.stat().st_uid == docked.path.stat().st_uid
    assert done.stdout.splitlines()[0] in ("slipway", "root")
    assert done.stdout.splitlines()[1] == f"slipway-{docked.id} docker here"


@pytest.mark.docker
def test_settings_and_the_calls_variables_pass_and_no_others(docked: Clone, tmp_path: Path) -> None:
    # Between the runner and Docker, to see what is said on the command line.
    spy = tmp_path / "spy"
    spy.mkdir()
    (spy / "docker").write_text(
        f'#!/bin/sh\necho "$*" >>"{spy}/calls"\nexec "{shutil.which("docker")}" "$@"\n'
    )
    (spy / "docker").chmod(0o755)
    done = docked.call(
        "docker/run.sh",
        "env",
        RUNNER="container",
        PATH=f"{spy}:{os.environ['PATH']}",
        PARAMS="alpha=0.5 beta='x y'",
        SCORING_KEY="opensesame",
        BUILD_URI="a b",
        MY_TOKEN="mine",
    )
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert seen["PARAMS"] == "alpha=0.5 beta='x y'"
    assert (seen["SCORING_KEY"], seen["BUILD_URI"]) == ("opensesame", "a b")
    assert "MY_TOKEN" not in seen
    assert "opensesame" not in (spy / "calls").read_text()


@pytest.mark.docker
def test_the_home_lasts_and_the_socket_is_only_for_those_who_need_it(docked: Clone) -> None:
    write = "import os, pathlib; (pathlib.Path.home() / 'note').write_text('kept')"
    docked.call("docker/run.sh", "python", "-c", write, RUNNER="container")
    look = "import os; print(os.path.exists('/var/run/docker.sock'))"
    done = docked.call("docker/run.sh", "python", "-c", look, RUNNER="container")
    assert done.stdout == "False\n"
    engine = "cat ~/note; docker version --format ' {{.Server.Os}}'"
    done = docked.call("docker/run.sh", "bash", "-c", engine, RUNNER="container")
    assert done.stdout == "kept linux\n"


@pytest.mark.docker
def test_a_container_trusts_debians_certificates_and_the_extra_ones(docked: Clone) -> None:
    (docked.path / "company.pem").write_text("# the company's own\n")
    script = 'grep -c BEGIN "$SSL_CERT_FILE"; tail -n 1 "$REQUESTS_CA_BUNDLE"'
    done = docked.call(
        "docker/run.sh", "sh", "-c", script, RUNNER="container", EXTRA_CA="company.pem"
    )
    count, last = done.stdout.splitlines()
    assert int(count) > 50
    assert last == "# the company's own"


@pytest.mark.docker
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_a_container_is_told_to_end_when_its_caller_is_gone(
    docked: Clone, kill: signal.Signals
) -> None:
    body = "import signal, sys, time, pathlib\n" + (
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('ended').touch(), sys.exit(0)))\n"
        "pathlib.Path('up').touch()\ntime.sleep(60)"
    )
    (docked.path / "body.py").write_text(body)
    caller = docked.start("sh", "-c", "docker/run.sh python body.py; :", RUNNER="container")
    _eventually((docked.path / "up").exists)
    caller.send_signal(kill)
    _eventually((docked.path / "ended").exists)
    _eventually(lambda: not docked.runners())


@pytest.mark.docker
def test_a_container_that_outlives_its_make_holds_the_next_one_up(docked: Clone) -> None:
    first = docked.start(
        "docker/run.sh",
        "sh",
        "-c",
        "touch up; until [ -e go ]; do sleep 0.1; done; touch over",
        RUNNER="container",
        SLIPWAY_LOCKED=str(docked.path),
    )
    _eventually((docked.path / "up").exists)
    done = docked.call("make/with-lock.sh", "true", code=1, LOCK_WAIT="0")
    assert "a container of an interrupted make still works" in done.stderr
    (docked.path / "go").touch()
    docked.call("make/with-lock.sh", "test", "-e", "over", LOCK_WAIT="60")
    first.communicate(timeout=60)


def _eventually(condition: object, seconds: float = 30) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.1)


#: Stands for the batch scorer: says which files it finds, and writes its output.
BATCH = """
import glob, os
for name in sorted(glob.glob(os.environ["INPUT"])):
    with open(name) as stream:
        print(name, stream.read().strip(), os.access(name, os.W_OK))
with open(os.environ["OUTPUT"], "w") as stream:
    stream.write(os.environ["KEEP"])
"""


@pytest.mark.docker
def test_a_batch_jobs_files_outside_the_tree_are_at_their_own_paths(
    docked: Clone, tmp_path: Path
) -> None:
    rows, scores = tmp_path / "rows [of] may", tmp_path / "scores"
    for folder in (rows, scores):
        folder.mkdir()
    (rows / "a.csv").write_text("1")
    (docked.path / "scripts").mkdir(exist_ok=True)
    (docked.path / "scripts" / "batch_score.py").write_text(BATCH)
    for output in (scores / "out.csv", rows / "out.txt"):
        done = docked.call(
            "docker/run.sh",
            *("python", "-m", "scripts.batch_score"),
            RUNNER="container",
            INPUT=f"{tmp_path}/rows*/*.csv",
            OUTPUT=str(output),
            KEEP="id,day of birth",
        )
        assert done.stdout.splitlines()[-1] == f"{rows}/a.csv 1 {output.parent == rows}"
        assert output.read_text() == "id,day of birth"
