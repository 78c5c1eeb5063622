"""`make status`: one table, whatever is there and whatever is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import status
from scripts.errors import SlipwayError
from scripts.platforms.base import ModelVersion
from tests.scripts.standin import Clone, Platform

VERSIONS = [
    ModelVersion("kiln-hours", number, f"{number:x}" * 32, {}) for number in range(12, 0, -1)
]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    return Clone(tmp_path, monkeypatch)


def shown(clone: Clone, platform: Platform, capsys: pytest.CaptureFixture[str]) -> str:
    clone.on("status", platform)
    assert status.main() == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "\x1b" not in output.out
    return output.out


def test_everything_in_one_table(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    clone.release()
    text = shown(clone, Platform(url="http://127.0.0.1:23117", versions=VERSIONS), capsys)
    assert "kiln-hours version 12, run cccccccccccc" in text
    assert "12, 11, 10, 9, 8, 7, 6, 5 and 4 before them" in text
    assert "kiln-hours version 4 at http://127.0.0.1:23117, healthy, process 7" in text
    assert "kiln-hours version 3, process 6" in text
    assert "passed: 38214 requests, 3812.7 a second, p95 4.41 ms, 0 failed" in text


def test_no_color_leaves_no_style_at_all(
    clone: Clone, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with pytest.raises(AssertionError):
        shown(clone, Platform(), capsys)
    monkeypatch.setenv("NO_COLOR", "1")
    shown(clone, Platform(), capsys)


def test_nothing_there_says_what_to_do(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(clone, Platform(), capsys)
    for command in ("make all", "make deploy", "make load"):
        assert command in text


def test_a_failed_load_test_is_told(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    clone.release()
    clone.fail("load", 3, "p95 is 812 ms, over LOAD_P95_MS=500", "")
    text = shown(clone, Platform(), capsys)
    assert "failed: p95 is 812 ms, over LOAD_P95_MS=500 (14 March 2025, 10:00 UTC)" in text


def test_one_broken_part_does_not_hide_the_others(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.release()
    (clone.records / "load.json").write_text("{")
    broken = Platform(url="http://127.0.0.1:9", versions=SlipwayError("mlflow.db [x] is locked"))
    text = shown(clone, broken, capsys)
    assert "cannot be read: mlflow.db [x] is locked" in text
    assert "http://127.0.0.1:9, healthy" in text
    assert "load.json is not valid JSON" in text


def test_it_changes_nothing(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    clone.release()
    before = sorted(path.name for path in clone.records.iterdir())
    shown(clone, Platform(), capsys)
    assert sorted(path.name for path in clone.records.iterdir()) == before
