"""Builds in a registry of the stand-in, with az and the real Docker."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.azure.cli import Cli
from tests.azure.images import server_image
from tests.azure.standin.standin import StandIn

pytestmark = [pytest.mark.azure, pytest.mark.docker]
GROUP, NAME = "Kiln42-AML-RG", "kiln42amlcr"
SERVER = f"{NAME}.azurecr.io"


@pytest.fixture(scope="module")
def cli(shared_standin: StandIn, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Cli:
    """A registry that holds a base image."""
    made = Cli(shared_standin, tmp_path_factory.mktemp("builds") / "home")
    made.az("group", "create", "-n", GROUP, "-l", "westeurope")
    made.az("acr", "create", "-g", GROUP, "-n", NAME, "--sku", "Basic")
    auth = made.authfile(made.az("acr", "login", "-n", NAME, "--expose-token"))
    there = f"docker://{SERVER}/slipway/ground:1"
    made.run("skopeo", "copy", "--authfile", auth, f"docker-daemon:{server_image(root)}", there)
    return made


def context(folder: Path, dockerfile: str, **files: str) -> str:
    folder.mkdir()
    (folder / "Dockerfile").write_text(dockerfile)
    for name, text in files.items():
        (folder / name).write_text(text)
    return str(folder)


def inspected(cli: Cli, image: str) -> dict[str, str]:
    """What the registry has of an image."""
    auth = cli.authfile(cli.az("acr", "login", "-n", NAME, "--expose-token"))
    said = cli.run(
        "skopeo", "inspect", "--config", "--authfile", auth, f"docker://{SERVER}/{image}"
    )
    found: dict[str, str] = json.loads(said.stdout)
    return found


def test_a_quick_build_is_pushed_and_keeps_secrets_to_itself(cli: Cli, tmp_path: Path) -> None:
    where = context(
        tmp_path / "context",
        f"FROM {SERVER}/slipway/ground:1\nARG PLAIN\nARG HUSH\nLABEL plain=$PLAIN\n"
        'COPY hello /hello\nRUN test "${#HUSH}" = 9\n',
        hello="hello\n",
    )
    done = cli.run(
        *("az", "acr", "build", "-r", NAME, "-t", "slipway/built:1"),
        *("--build-arg", "PLAIN=seen", "--secret-build-arg", "HUSH=hush-hush", where),
    )
    said = done.stdout + done.stderr
    assert "Successfully pushed image" in said
    assert "was successful after" in said
    assert "hush-hush" not in said
    config = inspected(cli, "slipway/built:1")
    assert config["config"]["Labels"]["plain"] == "seen"  # type: ignore[index]
    runs = cli.az("acr", "task", "list-runs", "-r", NAME)
    assert runs[0]["status"] == "Succeeded"
    assert runs[0]["outputImages"][0]["repository"] == "slipway/built"
    assert "hush-hush" not in json.dumps(runs)
    logs = [*cli.standin.world.folder.rglob("*.log"), cli.standin.world.folder / "calls.jsonl"]
    assert not [log for log in logs if b"hush-hush" in log.read_bytes()]


def test_a_task_of_steps_with_buildkit(cli: Cli, tmp_path: Path) -> None:
    task = {
        "version": "v1.1.0",
        "steps": [
            {
                "build": "--tag $Registry/slipway/task:1 --build-arg "
                f"BASE={SERVER}/slipway/ground:1 --label of=task --target end --file Dockerfile .",
                "env": ["DOCKER_BUILDKIT=1"],
            },
            {"push": ["$Registry/slipway/task:1"]},
            {"cmd": "$Registry/slipway/task:1 cat /made"},
        ],
    }
    where = context(
        tmp_path / "context",
        "ARG BASE\nFROM $BASE AS end\nRUN --mount=type=tmpfs,target=/scratch echo by buildkit >/made\n",
        task=json.dumps(task),
    )
    done = cli.run("az", "acr", "run", "-r", NAME, "-f", "task", "--timeout", "300", where)
    assert "by buildkit" in done.stdout
    assert inspected(cli, "slipway/task:1")["config"]["Labels"]["of"] == "task"  # type: ignore[index]
    # The name that was lent to the engine is not left there.
    left = subprocess.run(
        ["docker", "image", "inspect", f"{SERVER}/slipway/ground:1"], capture_output=True
    )
    assert left.returncode != 0


def test_a_failing_build_says_why(cli: Cli, tmp_path: Path) -> None:
    where = context(
        tmp_path / "context",
        f"FROM {SERVER}/slipway/ground:1\nRUN echo what is wrong >&2; exit 7\n",
    )
    done = cli.run("az", "acr", "build", "-r", NAME, "-t", "slipway/failing:1", where, check=False)
    assert done.returncode == 1
    assert "what is wrong" in done.stdout
    assert "failed to run step ID: build" in done.stdout
    assert "Run failed" in done.stderr
    assert "slipway/failing" not in cli.az("acr", "repository", "list", "-n", NAME)
    missing = context(tmp_path / "missing", f"FROM {SERVER}/slipway/no-such:1\n")
    done = cli.run("az", "acr", "build", "-r", NAME, "-t", "a:1", missing, check=False)
    assert "not found" in done.stdout


@pytest.mark.parametrize(
    ("trouble", "says"),
    [("acr build fails", "Run failed"), ("acr tasks not allowed", "(TasksOperationsNotAllowed)")],
)
def test_troubles(cli: Cli, tmp_path: Path, trouble: str, says: str) -> None:
    where = context(tmp_path / "context", f"FROM {SERVER}/slipway/ground:1\n")
    cli.standin.world.faults.trouble(trouble, 1)
    assert says in cli.az_fails("acr", "build", "-r", NAME, "-t", "slipway/again:1", where)
    cli.run("az", "acr", "build", "-r", NAME, "-t", "slipway/again:1", where)


def test_a_run_that_takes_too_long_is_ended(cli: Cli, tmp_path: Path) -> None:
    where = context(tmp_path / "context", f"FROM {SERVER}/slipway/ground:1\nRUN sleep 60\n")
    build = ("acr", "build", "-r", NAME, "-t", "slow:1", "--timeout", "3", where)
    assert "Run timed out" in cli.az_fails(*build)


def test_a_task_with_an_unknown_field_is_refused(cli: Cli, tmp_path: Path) -> None:
    task = {"version": "v1.1.0", "steps": [{"bild": "."}]}
    where = context(tmp_path / "context", "FROM scratch\n", task=json.dumps(task))
    done = cli.run("az", "acr", "run", "-r", NAME, "-f", "task", where, check=False)
    assert "field bild not found in type graph.Step" in done.stdout
