"""Where faults are tried: a clone, its stand-in, and states of both that can be gone back to."""

from __future__ import annotations

import copy
import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.azure.conftest import AzureClone
from tests.azure.standin.access import ASSIGNMENT, only
from tests.azure.standin.faults import Faults
from tests.azure.standin.world import APP_OBJECT, World

#: The dictionaries of an Azure ML workspace that a state of it holds.
ML = ("models", "model_versions", "assets")


class Bench:
    """A clone with named states of its records and of Azure, and what mends it after a fault."""

    def __init__(self, clone: AzureClone) -> None:
        self.clone = clone
        self.world: World = clone.standin.world
        self.faults: Faults = self.world.faults
        self.settings = dict(clone.settings)
        self.scratch = clone.home / "tmp"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.numbers = itertools.count(2)
        #: What an injury puts into the environment of the verb.
        self.around: dict[str, str] = {}
        #: What an injury leaves to be undone, the last one first.
        self.undo: list[Callable[[], None]] = []
        self._kept: dict[str, tuple[Path, Mapping[str, Any]]] = {}

    def keep(self, name: str) -> None:
        """Remember the present state under `name`."""
        folder = self.clone.home / "kept" / name
        build = self.clone.path / "build"
        shutil.rmtree(folder, ignore_errors=True)
        if build.exists():
            shutil.copytree(build, folder)
        self._kept[name] = (folder, self._state())

    def has(self, name: str) -> bool:
        return name in self._kept

    def restore(self, name: str) -> None:
        """Go back to that state."""
        folder, state = self._kept[name]
        build = self.clone.path / "build"
        shutil.rmtree(build, ignore_errors=True)
        if folder.exists():
            shutil.copytree(folder, build)
        for target, values in (
            (self.world.resources, "resources"),
            (self.world.deleted, "deleted"),
        ):
            target.clear()
            target.update(copy.deepcopy(state[values]))
        for workspace, values in state["ml"]:
            for each in ML:
                held = getattr(workspace, each)
                held.clear()
                held.update(copy.deepcopy(values[each]))

    def _state(self) -> Mapping[str, Any]:
        plane = self.world.rooms["ml"]
        return {
            "resources": copy.deepcopy(self.world.resources),
            "deleted": copy.deepcopy(self.world.deleted),
            "ml": [
                (workspace, {each: copy.deepcopy(getattr(workspace, each)) for each in ML})
                for workspace in plane._kept.values()
            ],
        }

    def set(self, **settings: str | None) -> None:
        """Change .env until the bench is mended; None takes a setting out."""
        for name, value in settings.items():
            if value is None:
                self.clone.settings.pop(name, None)
            else:
                self.clone.settings[name] = value
        self.clone.save()

    def sign_out(self) -> None:
        """Nobody is signed in."""
        shutil.rmtree(self.clone.home / ".azure", ignore_errors=True)
        (self.clone.home / ".azure").mkdir()

    def sign_in_as_person(self) -> None:
        """Somebody typed a device code here."""
        self.sign_out()
        self.set(SP_APP_ID=None, SP_APP_SECRET=None)
        self.clone.run("login")
        self.undo.append(self.sign_out)

    def forget_tokens(self) -> None:
        """The access tokens that az keeps are too old; what they are renewed with is still there."""
        file = self.clone.home / ".azure" / "msal_token_cache.json"
        cache = json.loads(file.read_text())
        cache["AccessToken"] = {}
        file.write_text(json.dumps(cache))

    def may_only(self, role: str) -> None:
        """The service principal has this role on the subscription and no other."""
        kept = {
            key: value
            for key, value in self.world.resources.items()
            if value["type"] == ASSIGNMENT and value["properties"]["principalId"] == APP_OBJECT
        }
        only(self.world, APP_OBJECT, role)
        given = [
            key
            for key, value in self.world.resources.items()
            if value["type"] == ASSIGNMENT
            and value["properties"]["principalId"] == APP_OBJECT
            and key not in kept
        ]

        def back() -> None:
            for key in given:
                self.world.resources.pop(key, None)
            self.world.resources.update(kept)

        self.undo.append(back)

    def mend(self) -> None:
        """No fault any more: settings, roles and login are as they should be."""
        self.faults.clear()
        while self.undo:
            self.undo.pop()()
        self.clone.settings = dict(self.settings)
        self.clone.save()

    @property
    def records(self) -> Mapping[str, Any]:
        return self.clone.records

    def leftovers(self) -> list[str]:
        """Files that a call began and did not finish, and processes that outlived it."""
        found = [str(path) for path in self.scratch.rglob("*") if path.is_file()]
        for path in (self.clone.path / "build").rglob(".*"):
            if path.is_file() and path.suffix not in (".lock", "") and ".json." in path.name:
                found.append(str(path))
            if path.name.startswith(".part-"):
                found.append(str(path))
        for file in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"TMPDIR={self.scratch}".encode() in file.read_bytes().split(b"\0"):
                    found.append((file.parent / "cmdline").read_bytes().decode())
            except OSError:
                continue
        return found
