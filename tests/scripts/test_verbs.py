"""What every verb shares: records replaced only on change, failures kept, outcomes, exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts.errors import Refused, SlipwayError, UsageError
from scripts.records import Records, write_atomic
from scripts.verb import Context, Result, run_verb

if TYPE_CHECKING:
    from tests.scripts.conftest import Workspace


def ends(error: Exception | None = None, **record: Any) -> Any:
    def body(context: Context) -> Result:
        if error:
            raise error
        return Result("did it", record)

    return body


def test_a_record_is_replaced_only_if_something_lasting_changed(workspace: Workspace) -> None:
    path = workspace.folder / "build" / "local" / "train.json"
    assert run_verb("train", ends(figure=1)) == 0
    os.utime(path, ns=(1, 1))
    assert run_verb("train", ends(figure=1)) == 0
    assert path.stat().st_mtime_ns == 1
    assert run_verb("train", ends(figure=2)) == 0
    assert path.stat().st_mtime_ns != 1
    assert json.loads(path.read_text())["figure"] == 2


def test_a_new_champion_alone_does_not_rerun_what_follows_data(workspace: Workspace) -> None:
    path = workspace.folder / "build" / "local" / "data.json"
    assert run_verb("data", ends(sha256="1", shift={"against": None})) == 0
    os.utime(path, ns=(1, 1))
    assert run_verb("data", ends(sha256="1", shift={"against": 1})) == 0
    assert path.stat().st_mtime_ns == 1
    assert workspace.record("data")["shift"] == {"against": 1}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SlipwayError("it broke", "mend it"), 1),
        (UsageError("it is wrong", "write it right"), 2),
        (Refused("too slow", "be quick", figures={"p95_ms": 900.0}), 3),
        (RuntimeError("nobody foresaw this"), 1),
    ],
)
def test_a_failure_is_kept_and_not_taken_for_done(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    assert run_verb("load", ends(figure=1)) == 0
    assert run_verb("load", ends(error)) == code
    records: Any = workspace.records
    assert "load" not in records
    assert records["load.failed"]["outcome"] == "failed"
    assert records["load.failed"]["code"] == code
    assert records["outcome"]["verb"] == "load"
    assert records["outcome"]["code"] == code
    if code == 3:
        assert records["load.failed"]["p95_ms"] == 900.0
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 2
    assert run_verb("load", ends(figure=1)) == 0
    assert set(workspace.records) == {"load", "outcome"}


def test_a_traceback_only_when_asked_for(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERBOSE", "1")
    assert run_verb("load", ends(RuntimeError("why"))) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_verb_without_a_record_leaves_no_failed_record(workspace: Workspace) -> None:
    assert run_verb("status", ends(SlipwayError("no"))) == 1
    assert set(workspace.records) == {"outcome"}


def test_a_failure_of_a_pipelines_run_takes_the_record_of_the_run_before(
    workspace: Workspace,
) -> None:
    assert run_verb("run-pipeline", ends(model_version=4)) == 0
    assert run_verb("run-pipeline", ends(SlipwayError("it was cancelled"))) == 1
    assert set(workspace.records) == {"run-pipeline.failed", "outcome"}
    assert run_verb("run-pipeline", ends(model_version=5)) == 0
    assert set(workspace.records) == {"run-pipeline", "outcome"}


def test_a_success_without_a_record_says_that_its_own_failure_is_over(
    workspace: Workspace,
) -> None:
    assert run_verb("login", ends(UsageError("a wrong secret"))) == 2
    assert run_verb("login", lambda context: Result("signed in")) == 0
    assert workspace.record("outcome")["code"] == 0
    assert workspace.record("outcome")["message"] == "signed in"
    # Another verb's failure stays to be read.
    assert run_verb("load", ends(Refused("too slow", "be quick"))) == 3
    assert run_verb("login", lambda context: Result("signed in")) == 0
    assert workspace.record("outcome")["verb"] == "load"


def test_wrong_settings_are_an_outcome_too(workspace: Workspace) -> None:
    (workspace.folder / ".env").write_text("LOAD_USERS=none\n")
    assert run_verb("load", ends(figure=1)) == 2
    assert "LOAD_USERS=none" in workspace.record("outcome")["message"]


def test_atomic_write_leaves_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_that_is_no_json_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(UsageError, match=r"data\.json is not valid JSON"):
        Records(tmp_path).read("data")
    with pytest.raises(UsageError, match="no record of `train`"):
        Records(tmp_path).read("train")
    Records(tmp_path).write("data", {"figure": 1})
    assert Records(tmp_path).read("data") == {"figure": 1}
