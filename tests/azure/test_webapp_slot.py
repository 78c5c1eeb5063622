"""What is in the slot and what serves, after calls that fail or are cut short.

The app is a fake, because each test needs az to fail at one moment of a swap; how App Service answers
is in test_webapp.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from scripts.errors import SlipwayError
from scripts.platforms.azure import service, webapp
from scripts.platforms.azure.ground import Ground
from scripts.platforms.azure.place import Place
from scripts.platforms.azure.refusals import explain
from scripts.platforms.azure.webapp import WebApp
from scripts.platforms.base import Image, Release
from scripts.settings import Settings

PLACE = Place(
    **{**dict.fromkeys(Place.__dataclass_fields__, ""), "subscription": "s", "group": "g"}
)
SAMPLE = {"sample": {"request": {}, "result": [], "tolerance": 0}}


@dataclass
class App:
    """An app and its slot as az sees them: what each has as settings, and whether it runs."""

    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    workers: int = 1
    #: What each swap meets, before and after it is made.
    swaps: list[tuple[str, str]] = field(default_factory=list)
    asked: int = 0

    def __call__(self, *words: str, stdin: str = "", once: bool = False, **_: Any) -> Any:
        place = words[words.index("--slot") + 1] if "--slot" in words else "production"
        match words:
            case ("webapp", "show", *_):
                return self._shown(place)
            case ("webapp", "config", "appsettings", "list", *_):
                return self.settings.get(place, {}).get(webapp.CONTENT)
            case ("webapp", "stop", *_):
                self.stopped.add(place)
            case ("webapp", "start", *_):
                self.stopped.discard(place)
            case ("webapp", "deployment", "slot", "swap", *_):
                assert once
                self._swap()
            case ("appservice", "plan", "show", *_):
                return self.workers if self.settings else None
            case ("tag", "update", *_):
                pairs = words[words.index("--tags") + 1 : words.index("--query")]
                self.tags |= dict(pair.split("=", 1) for pair in pairs)
            case ("deployment", "group", "create", *_):
                self._fill({n: v["value"] for n, v in json.loads(stdin).items()})
        return None

    find = __call__

    def _shown(self, place: str) -> Any:
        if place not in self.settings:
            return None
        state = "Stopped" if place in self.stopped else "Running"
        config = {"linuxFxVersion": f"DOCKER|{self.images[place]}"}
        return {"state": state, "tags": dict(self.tags), "siteConfig": config}

    def _fill(self, given: dict[str, Any]) -> None:
        for place in ("production", "staging") if given["first"] else ("staging",):
            candidate = given["candidate"]
            self.settings[place] = {each["name"]: each["value"] for each in candidate["settings"]}
            self.images[place] = candidate["image"]
        if given["first"]:
            self.tags = dict(given["labels"])
        self.workers = given["instances"]

    def _swap(self) -> None:
        self.asked += 1
        before, after = self.swaps.pop(0) if self.swaps else ("", "")
        if before:
            raise explain("az webapp deployment slot swap", before, Settings())
        for held in (self.settings, self.images):
            held["production"], held["staging"] = held["staging"], held["production"]  # type: ignore[index]
        if after:
            raise explain("az webapp deployment slot swap", after, Settings())


@dataclass
class Team:
    """Calls of verbs, each with a service of its own, as a process has."""

    root: Path
    app: App = field(default_factory=App)

    def service(self, **settings: Any) -> WebApp:
        key = SecretStr(settings.pop("key", "secret"))
        given = Settings(PLATFORM="azure", WEBAPP_DEPLOYMENT_NAME="kiln-web", **settings)
        made = WebApp(self.root, given, self.app)  # type: ignore[arg-type]
        made.ground.__dict__.update(place=PLACE, _held_key=key)
        return made

    def deploy(self, **settings: Any) -> int:
        image = Image("sha256:i", "r.azurecr.io/kiln:1", 0, {}, "sha256:d")
        release = Release("kiln", 1, "inputs", self.root, image)
        return self.service(**settings).deploy(release, SAMPLE).number

    def rows(self) -> list[str]:
        """MAX_ROWS of the app and of the slot."""
        return [self.app.settings[place]["MAX_ROWS"] for place in ("production", "staging")]


@contextmanager
def alone(service: WebApp) -> Iterator[bool]:
    """As where no other machine is: the lock is Azure ML's."""
    service._seen = None
    yield False


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    """Deployments 1 and 2, of the same image: MAX_ROWS=1 is in the slot, MAX_ROWS=2 serves."""
    bundle = tmp_path / "build" / "bundles" / "inputs" / "model" / "model.json"
    bundle.parent.mkdir(parents=True)
    bundle.write_text(json.dumps(SAMPLE))
    monkeypatch.setattr(service, "is_healthy", lambda *_, **__: True)
    monkeypatch.setattr(webapp, "wait_healthy", lambda *_, **__: True)
    monkeypatch.setattr(WebApp, "_alone", alone)
    monkeypatch.setattr(Ground, "keep_key", lambda _: None)
    monkeypatch.setattr(WebApp, "_proven_wrong", lambda *_: None)
    monkeypatch.setattr(webapp.WebApp, "_log_end", lambda *_: [])
    monkeypatch.setattr(webapp, "SWAPPED", 0.0)
    made = Team(tmp_path)
    assert [made.deploy(MAX_ROWS=1), made.deploy(MAX_ROWS=2)] == [1, 2]
    assert made.rows() == ["2", "1"]
    return made


def interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


LOST = "ERROR: (BadGateway) 502"
BUSY = "ERROR: (Conflict) Cannot modify this site because another operation is in progress."
PING = "ERROR: (Conflict) Cannot swap slots for site 'kiln-web'"


@pytest.mark.parametrize(
    ("swaps", "asked"), [([("", LOST)], 1), ([(BUSY, "")], 2), ([(BUSY, ""), ("", LOST)], 2)]
)
def test_a_swap_that_az_loses_sight_of_is_not_undone(
    team: Team, swaps: list[tuple[str, str]], asked: int
) -> None:
    team.app.swaps, team.app.asked = swaps, 0
    assert team.deploy(MAX_ROWS=3) == 3
    assert (team.rows(), team.app.asked) == (["3", "2"], asked)
    assert team.service().history()[0].number == 3


@pytest.mark.parametrize("said", [PING, BUSY])
def test_a_swap_that_is_refused_leaves_the_one_before(team: Team, said: str) -> None:
    team.app.swaps = [(said, ""), (said, "")]
    with pytest.raises(SlipwayError, match=r"deployment 2 .* serves on"):
        team.deploy(MAX_ROWS=3)
    team.app.swaps = []
    assert (team.rows(), team.app.stopped) == (["2", "3"], {"staging"})
    assert team.service().history()[0].number == 2
    # What was not proven is not put back.
    assert team.service().rollback().number == 4
    assert team.rows() == ["1", "2"]
    assert not team.app.stopped


def test_one_that_was_stopped_is_started_for_a_rollback(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webapp, "wait_healthy", lambda *_, **__: False)
    with pytest.raises(SlipwayError, match="swapped back"):
        team.deploy(MAX_ROWS=3)
    assert team.rows() == ["2", "3"]
    assert team.app.stopped == {"staging"}
    monkeypatch.setattr(webapp, "wait_healthy", lambda *_, **__: True)
    assert team.deploy(MAX_ROWS=3) == 4
    assert team.rows() == ["3", "2"]
    assert not team.app.stopped


def test_a_call_cut_short_while_it_proves_is_not_taken_for_the_one_before(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as cut:
        cut.setattr(WebApp, "_proven_wrong", interrupt)
        with pytest.raises(KeyboardInterrupt):
            team.deploy(MAX_ROWS=3)
    assert team.rows() == ["2", "3"]
    team.service().rollback()
    assert team.rows() == ["1", "2"]


def test_a_call_cut_short_after_the_swap_is_noted_by_the_next(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as cut:
        cut.setattr(webapp, "wait_healthy", interrupt)
        with pytest.raises(KeyboardInterrupt):
            team.deploy(MAX_ROWS=3)
    assert team.service().history()[0].number == 3
    team.service().rollback()
    assert team.rows() == ["2", "3"]


def test_a_rollback_finds_what_the_slot_has(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    team.service().rollback()
    assert team.deploy(MAX_ROWS=3) == 4
    monkeypatch.setattr(WebApp, "_create", interrupt)
    team.service().rollback()
    assert team.rows() == ["1", "3"]


def test_a_changed_key_changes_the_settings_and_nothing_shows_it(team: Team) -> None:
    before = team.app.settings["production"]
    assert team.deploy(MAX_ROWS=2, key="another-secret") == 3
    after = team.app.settings["production"]
    assert {n for n in after if after[n] != before[n]} == {webapp.CONTENT}
    assert "another-secret" not in json.dumps([after, team.app.tags])


def test_a_plan_that_was_scaled_stays_so(team: Team) -> None:
    team.app.workers = 3
    team.deploy(MAX_ROWS=3)
    assert team.app.workers == 3
