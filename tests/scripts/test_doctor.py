"""`make doctor`: a line for each check, every problem with its mend, and no crash."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from scripts import doctor
from scripts.checks import engine, machine, release
from scripts.settings import Settings, clone_id, default_port
from tests import rooms
from tests.scripts.standin import Clone, Platform


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    found = Clone(tmp_path, monkeypatch)
    rooms.write_room(tmp_path)
    monkeypatch.setenv("SLIPWAY_ENGINE", "none")
    # What else runs on the machine just now is not what is tested.
    monkeypatch.setattr(machine, "available_memory", lambda: 4 * machine.GIB)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("model", "model.contract", "model.estimator"):
        monkeypatch.delitem(doctor.sys.modules, name, raising=False)
    for module in (engine, release):
        monkeypatch.setattr(module, "connect", lambda root, settings: Platform())
    return found


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """The lines printed, by their first word."""
    found: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines()[1:]:
        word, _, rest = line.strip().partition(" ")
        found.setdefault(word, []).append(rest.strip())
    return found


def test_a_sound_machine_is_well(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main() == 0
    found = lines(capsys)
    assert "problem" not in found
    text = "\n".join(found["ok"])
    for what in ("settings:", "python:", "disk:", "build:", "data:", "model:", "registry:"):
        assert what in text
    assert "model: volume from 2 columns, gate on mae" in text
    assert any(line.startswith("docker: no engine") for line in found["note"])
    outcome = json.loads((clone.records / "outcome.json").read_text())
    assert (outcome["verb"], outcome["code"], outcome["outcome"]) == ("doctor", 0, "done")


def test_many_problems_are_all_told_each_with_its_mend(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.monkeypatch.delenv("EXTRA_CA", raising=False)
    (clone.root / ".env").write_text(
        "LOAD_USERS=0\nRUNTIME=tensorflow\nEXTRA_CA=nowhere.pem\nSCORING_KEY=swordfish\n"
    )
    (clone.root / "data" / "wood.csv").unlink()
    (clone.root / "model" / "estimator.py").write_text("import nonsense\n")
    store = clone.root / "build" / "mlflow"
    store.mkdir(parents=True)
    (store / "mlflow.db").write_bytes(b"this is no database at all" * 99)
    assert doctor.main() == 2
    output = capsys.readouterr()
    problems = [line for line in output.out.splitlines() if line.startswith("problem")]
    for said in (
        "LOAD_USERS=0",
        "RUNTIME=tensorflow",
        "EXTRA_CA=nowhere.pem: No such file or directory",
        "DATA_PATH=data/wood.csv: there is no such file",
        "model/estimator.py line 1 cannot be loaded",
        "mlflow.db cannot be read",
    ):
        assert sum(said in line for line in problems) == 1, said
    assert all(" — mend: " in line for line in problems)
    assert "swordfish" not in output.out + output.err
    outcome = json.loads((clone.records / "outcome.json").read_text())
    assert outcome["code"] == 2


def test_a_name_one_edit_from_a_setting_is_a_problem_and_hides_nothing(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    (clone.root / ".env").write_text("LOAD_USER=3\nDATA_PATH=data/none.csv\n")
    assert doctor.main() == 2
    problems = lines(capsys)["problem"]
    assert any(
        "LOAD_USER, which is no setting — mend: write LOAD_USERS" in line for line in problems
    )
    assert any("DATA_PATH=data/none.csv" in line for line in problems)


def test_a_check_that_breaks_is_a_problem_and_the_others_go_on(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(path: Path) -> None:
        raise RuntimeError("the disk is gone")

    clone.monkeypatch.setattr(machine.shutil, "disk_usage", broken)
    assert doctor.main() == 2
    found = lines(capsys)
    assert [line for line in found["problem"] if "RuntimeError: the disk is gone" in line]
    assert any(line.startswith("model:") for line in found["ok"])


def test_a_taken_port_is_told_unless_it_is_our_own_service(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        clone.monkeypatch.setenv("SCORING_PORT", str(port))
        assert doctor.main() == 2
        problems = lines(capsys)["problem"]
        assert [line for line in problems if f"SCORING_PORT={port}: address already in use" in line]

        ours = Platform(url=f"http://127.0.0.1:{port}")
        clone.monkeypatch.setattr(engine, "connect", lambda root, settings: ours)
        assert doctor.main() == 0
        assert any("is held by our own service" in line for line in lines(capsys)["ok"])


def test_two_ports_that_are_one_are_a_problem(clone: Clone) -> None:
    settings = Settings(SCORING_PORT=23456, MLFLOW_PORT=23456)
    (found,) = engine.ports(clone.root, settings)
    assert found.level == "problem"


@pytest.mark.parametrize(("free", "level"), [(1 * machine.GIB, "problem"), (3 * machine.GIB, "ok")])
def test_disk_is_measured(clone: Clone, free: int, level: str) -> None:
    usage = type("Usage", (), {"free": free})()
    clone.monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    assert machine.room("disk", clone.root, machine.TREE_BYTES).level == level


@pytest.mark.parametrize(
    ("bytes_left", "level"), [(1 << 20, "problem"), (3 << 29, "warning"), (4 << 30, "ok")]
)
def test_memory_is_measured(clone: Clone, bytes_left: int, level: str) -> None:
    clone.monkeypatch.setattr(machine, "available_memory", lambda: bytes_left)
    (found,) = machine.memory(clone.root, Settings())
    assert found.level == level


@pytest.mark.parametrize(
    ("version", "plugin", "level"),
    [
        ("20.10.24", 1, "ok"),
        ("28.1.0", 1, "problem"),
        ("28.1.0", 0, "ok"),
        ("18.06.1", 1, "problem"),
    ],
)
def test_a_client_without_buildkit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, plugin: int, level: str
) -> None:
    command = tmp_path / "docker"
    command.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] || exit {plugin}\necho "Docker version {version}, build 1"\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert engine.builder().level == level


@pytest.mark.docker
def test_docker_and_its_ports_are_checked(clone: Clone) -> None:
    clone.monkeypatch.setenv("SLIPWAY_ENGINE", "docker")
    levels = {finding.what: finding.level for finding in engine.docker(clone.root, Settings())}
    assert levels["docker"] == "ok"
    import docker

    client = docker.from_env()
    if engine.any_image(client) is None:
        pytest.skip("no image to publish a port with")
    if "SLIPWAY_NETWORK" not in os.environ:  # in the toolbox the host's ports cannot be taken
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert engine.publishing_fails(clone.root, port) == "another program holds it"
    assert engine.publishing_fails(clone.root, default_port(clone.root)) is None
    left = client.containers.list(
        all=True, filters={"label": f"slipway.clone={clone_id(clone.root)}"}
    )
    client.close()
    assert left == []
