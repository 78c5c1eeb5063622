"""`make report`: the page tells every stage, loads nothing, shows no secret, and survives what failed."""

from __future__ import annotations

import base64
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest

from scripts import report
from scripts.errors import SlipwayError
from scripts.platforms.base import ModelVersion
from scripts.records import STAGES
from tests.records_schema import validate
from tests.scripts.standin import INPUTS, SAMPLE, Clone, Platform

VERSIONS = [
    ModelVersion(
        "kiln-hours",
        number,
        f"{number}" * 32,
        {"metrics": json.dumps({"mae": mae}), "parameters": '{"alpha": 0.3}', "decision": "first"},
    )
    for number, mae in ((4, 9.214), (3, 10.0825))
]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HISTORY = [
    {"at": float(second), "users": 10, "requests_per_second": 3800.0 + second, "p95_ms": 4.0}
    for second in range(1, 11)
]
HISTOGRAM = [
    {"from_ms": 1.0, "to_ms": 2.0, "requests": 7},
    {"from_ms": 2.0, "to_ms": 4.0, "requests": 3},
]


class Page(HTMLParser):
    """What a browser would see: texts by section, what would be loaded, and where links lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.sections: dict[str, str] = {}
        self.top = ""
        self.loads: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self._section: str | None = None
        self._hidden = False
        self.feed(html)
        self.close()

    VOID = ("meta", "link", "img", "br", "hr", "input")

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = given["id"] or ""
            self.sections[self._section] = ""
        self._hidden = tag in ("style", "title", "script")
        if tag == "a":
            self.links.append(given["href"] or "")
        self.loads += [
            value or ""
            for name, value in attributes
            if name in ("src", "srcset", "poster", "data", "action", "xlink:href")
            or (name == "href" and tag != "a")
        ]
        self.loads += re.findall(r"url\(([^)]*)\)", given.get("style") or "")
        if tag == "img" or given.get("role") == "img":
            self.pictures.append({"tag": tag, **given})

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        self._hidden = False
        if tag == "section":
            self._section = None

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        text = " ".join(data.split()) + " "
        if self._section is None:
            self.top += text
        else:
            self.sections[self._section] += text


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    found = Clone(tmp_path, monkeypatch)
    found.on("report", Platform(versions=VERSIONS))
    return found


def made(clone: Clone) -> Page:
    assert report.main() == 0
    return Page((clone.records / "report.html").read_text("utf-8"))


def test_every_stage_is_told_with_its_figures(clone: Clone) -> None:
    clone.release()
    for plot in clone.record("train")["plots"]:
        path = clone.root / plot
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PIXEL)
    (clone.records / "load").mkdir()
    stats = {"history": HISTORY, "histogram": HISTOGRAM}
    (clone.records / "load" / "stats.json").write_text(json.dumps(stats))

    page = made(clone)
    assert "Released kiln-hours version 4" in page.top
    expected = {
        "data": [
            "data/kiln.csv",
            "1 200 rows",
            "moisture_start shifted",
            "0.27",
            "spruce",
            "17",
        ],
        "train": ["8.731", "9.214", "alpha", "0.3", "Predicted vs actual", "Residuals"],
        "evaluate": ["Promoted", "9.214", "10.08", "+0.868", "0.25", "236 rows", "−0.868"],
        "register": ["kiln-hours", "Version 4", "champion", "10.08", "444444444444"],
        "image": ["291 MB", "onnx", "float64", "3.1e-13", "1e-6", "unseen category", "int8"],
        "deploy": ["http://127.0.0.1:23117", "number 7", "number 6", "version 4"],
        "smoke": ["status 200", "2.1e-13", "5f0d8f5e-6a0e-4d8c-8a57-2f3f0d1c9b7e", "duration_ms"],
        "load": [
            "4.41 ms",
            "500 ms",
            "38 214",
            "31.4 ms",
            "Requests a second",
            "1 ms",
            "4 ms",
        ],
        "lineage": ["4d0c8f3ab5e94f8c9a7e3b1d2c6f5a10", "9f2c4b7d0e1a3856", "b94d", "20250314.2"],
        "again": ["git checkout 9f2c4b7d", 'PARAMS="alpha=0.3 degree=2 scale=true"'],
    }
    for section, texts in expected.items():
        for text in texts:
            assert text in page.sections[section], (section, text)
    assert "<b>onnx" not in page.html
    assert "&lt;Node&gt; type mismatch &amp; more" in page.html
    plots = [picture for picture in page.pictures if picture["tag"] == "img"]
    assert [str(plot["src"])[:22] for plot in plots] == ["data:image/png;base64,"] * 2
    assert all(picture.get("alt") or picture.get("aria-label") for picture in page.pictures)
    assert page.html.count("<polyline") == 2
    record = clone.record("report")
    validate("report", record)
    assert record["path"] == "build/local/report.html"


def test_the_page_loads_nothing(clone: Clone) -> None:
    clone.release()
    page = made(clone)
    assert [load for load in page.loads if not load.startswith("data:")] == []
    assert not re.search(r"@import|<script|<link[^>]+stylesheet|url\(", page.html)
    assert {link for link in page.links if not link.startswith("#")} == {
        "https://ci.example/builds/4711"
    }
    ids = set(re.findall(r'id="([\w-]+)"', page.html))
    assert {link[1:] for link in page.links if link.startswith("#")} <= ids


def test_secrets_and_credentials_are_left_out(clone: Clone) -> None:
    clone.monkeypatch.setenv("SCORING_KEY", "swordfish-41")
    clone.monkeypatch.setenv("SP_APP_SECRET", "swordfish-41-and-more")
    clone.release()
    train = clone.record("train")
    train["build_uri"] = "https://user:hunter2@ci.example/builds/1"
    train["parameters"] = {"note": "<script>alert(1)</script> swordfish-41-and-more"}
    clone.write("train", train)
    model = clone.root / "build" / "bundles" / INPUTS / "model" / "model.json"
    model.write_text(json.dumps({"sample": SAMPLE}))
    clone.fail("deploy", 1, "the log says swordfish-41", "look at `make logs`")
    page = made(clone)
    assert "swordfish" not in page.html
    assert "and-more" not in page.html
    assert "hunter2" not in page.html
    assert "<script" not in page.html
    assert "the log says (secret)" in page.top


def test_how_to_ask_the_service_names_the_key_and_holds_a_real_row(clone: Clone) -> None:
    clone.monkeypatch.setenv("SCORING_KEY", "swordfish-41")
    clone.release()
    model = clone.root / "build" / "bundles" / INPUTS / "model" / "model.json"
    model.write_text(json.dumps({"sample": SAMPLE}))
    text = made(clone).sections["again"]
    assert "curl -s http://127.0.0.1:23117/score" in text
    assert "Authorization: Bearer $SCORING_KEY" in text
    assert '["spruce", 38.0, 0.5, 62.5]' in text


WORDS = {1: "Failed", 2: "Failed", 3: "Refused", 143: "Interrupted"}


@pytest.mark.parametrize(("stage", "code"), list(zip(STAGES, [*WORDS, *WORDS], strict=False)))
def test_a_failed_stage_stands_on_top_with_its_mend(clone: Clone, stage: str, code: int) -> None:
    clone.release()
    clone.fail(stage, code, "the disk <is> full", "make room with `make distclean`")
    page = made(clone)
    assert f"{WORDS[code]} at {stage}" in page.top
    assert "the disk <is> full" in page.top
    assert "To mend it: make room with make distclean" in page.top
    assert "the disk <is> full" in page.sections[stage]
    later = STAGES[STAGES.index(stage) + 1 : -1]
    for name in later:
        assert "this is of the release before" in page.sections[name]


def test_figures_of_a_refused_load_are_shown(clone: Clone) -> None:
    clone.release()
    figures = {key: value for key, value in clone.record("load").items() if key != "message"}
    figures |= {"p95_ms": 812.0, "reasons": [{"reason": "status 503", "requests": 12}]}
    for name in ("verb", "outcome", "time", "duration_seconds"):
        figures.pop(name)
    clone.fail("load", 3, "p95 is 812 ms, over LOAD_P95_MS=500", "mend it", **figures)
    page = made(clone)
    assert "Refused at load" in page.top
    assert "812 ms" in page.sections["load"]
    assert "status 503" in page.sections["load"]


def test_a_first_model_no_better_than_a_dummy_is_told(clone: Clone) -> None:
    clone.release()
    figures = {**clone.record("evaluate"), "decision": "first", "champion": None, "baseline": 9.1}
    for name in ("verb", "outcome", "message", "time", "duration_seconds"):
        figures.pop(name)
    clone.fail("evaluate", 3, "no better than a dummy", "look into the data", **figures)
    assert "No better than a dummy: mae 9.214 against 9.1" in made(clone).sections["evaluate"]


def test_nothing_run_makes_a_page_too(clone: Clone) -> None:
    clone.on("report", Platform())
    page = made(clone)
    assert "Nothing has run yet" in page.top
    assert "make all" in page.top
    for stage in STAGES[:-1]:
        assert f"make {stage}" in page.sections[stage]


@pytest.mark.parametrize("count", [1, 4, 7])
def test_a_release_half_done_says_what_is_next(clone: Clone, count: int) -> None:
    clone.release()
    for stage in STAGES[count:]:
        (clone.records / f"{stage}.json").unlink()
    page = made(clone)
    assert f"The next stage is {STAGES[count]}." in page.top


def test_a_candidate_trained_since_is_not_mixed_with_the_release_before(clone: Clone) -> None:
    clone.release()
    clone.write("train", {**clone.record("train"), "run_id": "f" * 32})
    page = made(clone)
    assert "The next stage is evaluate." in page.top
    assert "this is of the release before" in page.sections["load"]


def test_a_kept_candidate_and_a_rollback_are_the_verdict(clone: Clone) -> None:
    clone.release()
    kept = {**clone.record("evaluate"), "decision": "kept", "outcome": "kept", "margin": -0.5}
    clone.write("evaluate", kept)
    registered = {**clone.record("register"), "registered": False, "outcome": "kept"}
    clone.write("register", {**registered, "version": 3})
    clone.write("deploy", {**clone.record("deploy"), "version": 3})
    page = made(clone)
    assert "Kept kiln-hours version 3" in page.top
    assert "stays the champion" in page.sections["register"]
    rolled = {**clone.record("deploy"), "rolled_back": True, "version": 3, "inputs": "0" * 16}
    clone.write("deploy", rolled)
    page = made(clone)
    assert "Rolled back to version 3" in page.top
    assert "Rolled back" in page.sections["deploy"]


def test_a_version_that_was_asked_for_by_number_is_no_release_of_the_champion(
    clone: Clone,
) -> None:
    clone.release()
    clone.write("deploy", {**clone.record("deploy"), "version": 2})
    page = made(clone)
    assert "Version 2 serves" in page.top
    assert "the champion is kiln-hours version 4" in page.top
    assert "Released" not in page.top


def test_a_registry_that_cannot_be_read_does_not_stop_the_page(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.release()
    clone.on("report", Platform(versions=SlipwayError("MLflow's database is locked", "wait")))
    assert "The registry could not be read" in made(clone).sections["register"]
    assert "MLflow's database is locked" in capsys.readouterr().err


def test_a_strange_address_of_a_build_is_no_link(clone: Clone) -> None:
    clone.release()
    clone.write("train", {**clone.record("train"), "build_uri": "javascript:alert(1)"})
    assert all(link.startswith("#") for link in made(clone).links)


@pytest.mark.parametrize(
    "parameters",
    [{"alpha": 0.3, "scale": True}, {"note": "it's $HOME", "none": None}, {"sizes": [8, 4]}, {}],
)
def test_the_call_that_is_shown_gives_the_same_parameters(parameters: dict[str, object]) -> None:
    from scripts import formats
    from scripts.train import parse_parameters

    (given,) = shlex.split(formats.call(parameters))
    assert parse_parameters(given, parameters) == parameters
