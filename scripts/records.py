"""The records of a release: one JSON file a verb, replaced whole or not at all.

A record that differs only in its time or duration is left as it is, so that make does not rerun
what depends on it. Schemas: docs/records.md.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.errors import UsageError

#: The verbs that leave a record, in the order data flows.
STAGES = (
    "data",
    "train",
    "evaluate",
    "register",
    "image",
    "deploy",
    "smoke",
    "load",
    "report",
)

#: The verbs that leave a record where the platform must have something first.
PREPARING = ("provision",)

#: And the verbs of a platform's own pipelines.
PIPELINE = ("publish-pipeline", "run-pipeline")

#: The stages that are done once for each target, where the platform has several.
TARGETED = frozenset({"deploy", "smoke", "load"})

#: What changes without the work having changed.
VOLATILE = frozenset({"time", "duration_seconds"})
#: What is held against the champion and so changes with it: worth knowing, but no input of the next
#: verb. The record is rewritten with its old time stamp, which is all that make looks at.
ASIDE = frozenset({"shift"})

Record = dict[str, Any]


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _encode(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()


def _without(record: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


class Records:
    """The records in `folder` (build/local, or build/azure/<workspace>).

    With a `target` those of what serves are that target's: deploy-aci.json.
    """

    def __init__(self, folder: Path, target: str | None = None) -> None:
        self.folder = folder
        self.target = target

    def _name(self, verb: str) -> str:
        return f"{verb}-{self.target}" if self.target and verb in TARGETED else verb

    def path(self, verb: str) -> Path:
        return self.folder / f"{self._name(verb)}.json"

    def failed_path(self, verb: str) -> Path:
        return self.folder / f"{self._name(verb)}.failed.json"

    def find(self, verb: str) -> Record | None:
        """The verb's record, or None if it was never done (or its last call failed)."""
        return self._load(self.path(verb))

    def find_failed(self, verb: str) -> Record | None:
        """What the verb left when it last failed, or None if it did not."""
        return self._load(self.failed_path(verb))

    def read(self, verb: str) -> Record:
        """The verb's record; UsageError if there is none."""
        record = self.find(verb)
        if record is None:
            raise UsageError(f"there is no record of `{verb}`", f"run `make {verb}` first")
        return record

    def write(self, verb: str, record: Mapping[str, Any]) -> bool:
        """Keep `record`, and return whether anything that lasts in it changed."""
        path = self.path(verb)
        # As it will be read back: tuples are lists, keys are strings.
        fresh: Record = json.loads(_encode(record))
        try:
            before = self.find(verb) or {}
        except UsageError:
            before = {}
        changed = _without(fresh, VOLATILE | ASIDE) != _without(before, VOLATILE | ASIDE)
        if changed:
            write_atomic(path, _encode(fresh))
        elif _without(fresh, VOLATILE) != _without(before, VOLATILE):
            stamp = path.stat().st_mtime_ns
            write_atomic(path, _encode(fresh))
            os.utime(path, ns=(stamp, stamp))
        self.failed_path(verb).unlink(missing_ok=True)
        return changed

    def forget(self, *verbs: str) -> None:
        """Remove what the verbs recorded: it is no longer true, so make counts them as undone."""
        for verb in verbs:
            self.path(verb).unlink(missing_ok=True)
            self.failed_path(verb).unlink(missing_ok=True)

    def forget_all(self) -> None:
        """Remove all that was recorded, make's stamps too: nothing of it is there any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def write_failed(self, verb: str, record: Mapping[str, Any]) -> None:
        """Keep a failure; what the verb said before is no longer true of its last call."""
        write_atomic(self.failed_path(verb), _encode(record))
        self.path(verb).unlink(missing_ok=True)

    def write_outcome(self, outcome: Mapping[str, Any]) -> None:
        """Leave the last verb's outcome for a CI job to read."""
        write_atomic(self.folder / "outcome.json", _encode(outcome))

    def last_failed(self, verb: str) -> bool:
        """Whether what is left for a CI job tells of a failure of that verb."""
        try:
            last = self._load(self.folder / "outcome.json") or {}
        except UsageError:
            return False
        return (last.get("verb"), last.get("outcome")) == (verb, "failed")

    @staticmethod
    def _load(path: Path) -> Record | None:
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            return None
        try:
            record = json.loads(text)
        except ValueError as error:
            raise UsageError(
                f"{path} is not valid JSON ({error})", f"remove it and run `make {path.stem}`"
            ) from None
        if not isinstance(record, dict):
            raise UsageError(f"{path} is not a record", f"remove it and run `make {path.stem}`")
        return record
