"""`make deploy`, `rollback`, `down` and `logs` as their callers see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import deploy, down, logs, rollback
from scripts.platforms.base import Release
from tests.scripts.deploy.conftest import Bench
from tests.scripts.deploy.releases import write_record, write_release


class Verbs:
    """Runs verbs on a clone without an engine."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = bench
        self.folder = bench.root / "build" / "local"
        self._monkeypatch = monkeypatch
        self._releases: dict[int, Release] = {}

    def package(self, version: int) -> None:
        """Leave the image record of a version."""
        if version not in self._releases:
            self._releases[version] = write_release(self.bench.root, version)
        write_record(self.bench.root, self._releases[version])

    def run(self, verb: Any, **environ: str) -> int:
        with self._monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            code: int = verb.main()
            return code

    def record(self, verb: str = "deploy") -> dict[str, Any] | None:
        path = self.folder / f"{verb}.json"
        return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture
def verbs(make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> Verbs:
    bench = make_bench("process")
    monkeypatch.setenv("SLIPWAY_ROOT", str(bench.root))
    monkeypatch.setenv("SLIPWAY_ENGINE", "none")
    monkeypatch.setenv("SCORING_PORT", str(bench.port))
    return Verbs(bench, monkeypatch)


def test_deploy_records_what_serves(verbs: Verbs) -> None:
    verbs.package(1)
    assert verbs.run(deploy) == 0
    record = verbs.record()
    assert record is not None
    time, spent = record.pop("time"), record.pop("duration_seconds")
    assert time.endswith("Z")
    assert spent > 0
    assert record == {
        "verb": "deploy",
        "outcome": "done",
        "message": f"adder version 1 serves at http://127.0.0.1:{verbs.bench.port} (deployment 1)",
        "deployment": 1,
        "version": 1,
        "model_name": "adder",
        "kind": "process",
        "image_id": None,
        "inputs": verbs.bench.service.history()[0].inputs,
        "url": f"http://127.0.0.1:{verbs.bench.port}",
        "inner_url": None,
        "previous": None,
        "rolled_back": False,
    }


def test_the_same_again_changes_nothing_unless_forced(
    verbs: Verbs, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs.package(1)
    verbs.run(deploy)
    before = (verbs.folder / "deploy.json").stat()
    assert verbs.run(deploy) == 0
    assert "serves already" in capsys.readouterr().out
    assert (verbs.folder / "deploy.json").stat() == before, "what depends on it is not redone"
    assert verbs.bench.numbers == [1]
    assert verbs.run(deploy, FORCE="1") == 0
    assert verbs.bench.numbers == [2, 1]


def test_without_an_image_record_deploy_says_what_to_run(
    verbs: Verbs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verbs.run(deploy) == 2
    assert "make image" in capsys.readouterr().err


def test_a_missing_bundle_is_named(verbs: Verbs, capsys: pytest.CaptureFixture[str]) -> None:
    verbs.package(1)
    for path in (verbs.bench.root / "build" / "bundles").rglob("model.json"):
        path.unlink()
    assert verbs.run(deploy) == 2
    assert "make image FORCE=1" in capsys.readouterr().err


def test_a_rollback_is_recorded_and_what_was_tested_is_undone(verbs: Verbs) -> None:
    for version in (1, 2):
        verbs.package(version)
        verbs.run(deploy)
    for tested in ("smoke.json", "load.json", "load.failed.json"):
        (verbs.folder / tested).write_text("{}")
    assert verbs.run(rollback) == 0
    record = verbs.record()
    assert record is not None
    assert (record["version"], record["deployment"], record["rolled_back"]) == (1, 3, True)
    assert sorted(path.name for path in verbs.folder.glob("*.json")) == [
        "deploy.json",
        "image.json",
        "outcome.json",
    ]


def test_a_rollback_without_a_previous_deployment_is_refused(
    verbs: Verbs, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs.package(1)
    verbs.run(deploy)
    before = (verbs.folder / "deploy.json").read_text()
    assert verbs.run(rollback) == 2
    assert "no previous deployment" in capsys.readouterr().err
    assert (verbs.folder / "deploy.json").read_text() == before
    assert verbs.bench.serving == [1]


def test_a_rolled_back_version_waits_for_a_newer_one(
    verbs: Verbs, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in (1, 2):
        verbs.package(version)
        verbs.run(deploy)
    verbs.run(rollback)
    assert verbs.run(deploy) == 0
    record = verbs.record()
    assert record is not None
    assert (record["outcome"], record["version"], record["rolled_back"]) == ("kept", 1, True)
    assert "version 2 was rolled back" in record["message"]
    assert verbs.bench.serving == [1]
    verbs.package(3)
    assert verbs.run(deploy) == 0
    assert verbs.bench.serving == [3]


@pytest.mark.parametrize("asked", [{"FORCE": "1"}, {"MODEL_VERSION": "2"}])
def test_a_rolled_back_version_is_deployed_when_asked_for(
    verbs: Verbs, asked: dict[str, str]
) -> None:
    for version in (1, 2):
        verbs.package(version)
        verbs.run(deploy)
    verbs.run(rollback)
    assert verbs.run(deploy, **asked) == 0
    assert verbs.bench.serving == [2]
    record = verbs.record()
    assert record is not None
    assert record["rolled_back"] is False


def test_after_down_a_rolled_back_version_must_be_asked_for(
    verbs: Verbs, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in (1, 2):
        verbs.package(version)
        verbs.run(deploy)
    verbs.run(rollback)
    verbs.run(down)
    assert verbs.run(deploy) == 2
    assert "MODEL_VERSION" in capsys.readouterr().err


def test_down_stops_the_service_and_its_record(
    verbs: Verbs, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs.package(1)
    verbs.run(deploy)
    assert verbs.run(down) == 0
    assert verbs.record() is None
    assert verbs.bench.serving == []
    assert verbs.run(down) == 0
    assert "nothing was serving" in capsys.readouterr().out
    assert verbs.run(deploy) == 0
    assert verbs.bench.serving == [1]


def test_a_failed_deployment_leaves_its_failure(verbs: Verbs) -> None:
    verbs.package(1)
    verbs.run(deploy)
    bundle = next((verbs.bench.root / "build" / "bundles").iterdir())
    Path(bundle, "model", "model.onnx").write_bytes(b"truncated")
    assert verbs.run(deploy, FORCE="1") == 1
    assert verbs.record() is None
    assert "serves on" in json.loads((verbs.folder / "deploy.failed.json").read_text())["message"]
    assert verbs.bench.serving == [1]


def test_logs_prints_what_is_there(verbs: Verbs, capsys: pytest.CaptureFixture[str]) -> None:
    assert verbs.run(logs) == 2
    verbs.package(1)
    verbs.run(deploy)
    capsys.readouterr()
    assert verbs.run(logs) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert any(json.loads(line).get("event") == "listening" for line in lines)
