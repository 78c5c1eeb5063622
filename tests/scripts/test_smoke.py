"""`make smoke` as its caller sees it: exit code, messages, record."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scripts import smoke
from tests.records_schema import validate
from tests.scripts.standin import INPUTS, Clone, Platform, serving


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    monkeypatch.setattr(smoke, "LOG_SECONDS", 0.3)
    return Clone(tmp_path, monkeypatch)


def test_a_good_answer_is_done_and_recorded(clone: Clone) -> None:
    with serving() as server:
        clone.on("smoke", Platform(server))
        assert smoke.main() == 0
    record = clone.record("smoke")
    validate("smoke", record)
    assert record["status"] == 200
    assert record["predictions"] == 3
    assert record["max_difference"] == 0
    assert (record["deployment"], record["version"]) == (7, 4)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", record["traceparent"])
    assert record["log"]["request_id"] == record["request_id"]
    assert record["log"]["traceparent"] == record["traceparent"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("status", "status 500"),
        ("shape", "2 results for 3 rows"),
        ("values", "results differ by 3 from those recorded at packaging (tolerance 1e-06)"),
        ("echo", "the answer carries request id 'another'"),
        ("trace", "its log line has traceparent None"),
        ("silent", "the service logged no line for request"),
    ],
)
def test_whatever_is_wrong_is_refused_with_its_figures(
    clone: Clone, capsys: pytest.CaptureFixture[str], fault: str, said: str
) -> None:
    with serving(fault) as server:
        clone.on("smoke", Platform(server))
        assert smoke.main() == 3
    errors = capsys.readouterr().err
    assert said in errors
    assert "make rollback" in errors
    assert not (clone.records / "smoke.json").exists()
    failed = clone.record("smoke.failed")
    validate("smoke", failed)
    assert failed["code"] == 3
    assert failed["status"] == (500 if fault == "status" else 200)
    assert failed["request_id"]


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_where_lines_come_late_a_missing_one_is_a_warning_and_the_request_id_is_the_check(
    clone: Clone, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    monkeypatch.setattr(smoke, "FAR", 0.1)
    with serving("silent") as server:
        clone.on("smoke", Platform(server, log_delay=delay))
        assert smoke.main() == 0
    said = capsys.readouterr()
    assert f"is not in the service's log after {delay:g} s" in said.out + said.err
    assert clone.record("smoke")["log"] is None
    with serving("echo") as server:
        clone.on("smoke", Platform(server, log_delay=delay))
        assert smoke.main() == 3
    assert "the answer carries request id 'another'" in capsys.readouterr().err


def test_the_key_is_sent_and_stands_nowhere(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(key="swordfish-41") as server:
        clone.on("smoke", Platform(server))
        assert smoke.main() == 0
    output = capsys.readouterr()
    assert "swordfish" not in output.out + output.err + json.dumps(clone.record("smoke"))


def test_nothing_deployed_is_a_usage_error(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.on("smoke", Platform())
    assert smoke.main() == 2
    assert "nothing is deployed\n  mend: run `make deploy`" in capsys.readouterr().err


def test_a_service_that_does_not_answer_is_a_failure_with_a_mend(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server:
        url = server.url
    clone.on("smoke", Platform(url=url))
    assert smoke.main() == 1
    errors = capsys.readouterr().err
    assert f"{url} does not answer: Connection refused" in errors
    assert "make deploy" in errors


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "is gone"), ("{}", "is not a packaged model"), ("[", "is not a packaged model")],
)
def test_a_bundle_that_is_gone_or_broken_is_told(
    clone: Clone, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    path = clone.root / "build" / "bundles" / INPUTS / "model" / "model.json"
    path.unlink() if content is None else path.write_text(content)
    clone.on("smoke", Platform(url="http://127.0.0.1:9"))
    assert smoke.main() == 1
    assert said in capsys.readouterr().err


def test_labels_are_compared_as_they_are() -> None:
    from scripts.answers import difference

    assert difference(["a", "b"], ["a", "b"]) == 0
    assert difference(["a", "c"], ["a", "b"]) == float("inf")
    assert difference([1.0], ["1.0"]) == float("inf")
    assert difference([None], [1.0]) == float("inf")
    assert difference([True], [1.0]) == float("inf")
    assert difference([1.25, 3], [1.0, 3]) == 0.25
