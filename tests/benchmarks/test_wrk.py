"""Load from wrk: what it reports, and that no wrong answer escapes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import wrk
from benchmarks.machine import two_cores
from benchmarks.processes import Running, running
from scripts.errors import SlipwayError, UsageError
from tests.benchmarks.conftest import ROWS, doubler

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="not run: there is no wrk")


def load(server: Running, folder: Path, answer: bytes, part: str) -> wrk.Load:
    request, expected = folder / "request", folder / "expected"
    request.write_bytes(server.contestant.request(ROWS))
    expected.write_bytes(answer)
    url = f"http://127.0.0.1:{server.port}/score"
    return wrk.run_wrk(
        wrk.Call(url, {"X-Key": "a b"}, request, expected, part), 2, 1, two_cores()[1]
    )


@needs_wrk
def test_right_answers_are_counted_and_timed(tmp_path: Path, answer: bytes) -> None:
    with running(doubler(tmp_path), two_cores()[0], tmp_path / "log") as server:
        seen = load(server, tmp_path, answer, server.contestant.part)
    assert seen.requests > 10
    assert seen.requests_per_second == pytest.approx(seen.requests, rel=0.5)
    assert 0 < seen.p50_ms <= seen.p99_ms
    assert (seen.wrong, seen.broken) == (0, 0)
    assert seen.client_busy > 0


@needs_wrk
def test_every_wrong_answer_is_seen(tmp_path: Path, answer: bytes) -> None:
    with running(doubler(tmp_path, every=4), two_cores()[0], tmp_path / "log") as server:
        seen = load(server, tmp_path, answer, server.contestant.part)
        assert abs(seen.wrong - seen.requests / 4) <= 2
        # Without a part the ids count too, and none is the expected one.
        whole = load(server, tmp_path, answer, "")
        assert whole.wrong == whole.requests


@needs_wrk
def test_an_address_where_nobody_listens_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    call = wrk.Call("http://127.0.0.1:9/", {}, tmp_path / "file", tmp_path / "file", "")
    with pytest.raises(SlipwayError, match="wrk"):
        wrk.run_wrk(call, 1, 1, two_cores()[1])


def test_output_without_a_result_is_an_error() -> None:
    with pytest.raises(SlipwayError, match="no result: Running 1s test"):
        wrk.parse("Running 1s test\n")


def test_without_wrk_the_mend_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="apt-get install wrk"):
        wrk.require_wrk()
