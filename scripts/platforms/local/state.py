"""What the service's supervisor remembers: build/service/state.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.errors import SlipwayError
from scripts.records import write_atomic

State = dict[str, Any]


def read_state(folder: Path) -> State:
    """The state in `folder`, or the one before the first deployment.

    `deployments` are those still kept, `serving` is the number of one of them, `port` where it
    serves, `servers` the processes that may run. SlipwayError if the file is damaged.
    """
    path = folder / "state.json"
    blank: State = {"deployments": [], "serving": None, "port": None, "servers": []}
    try:
        return {**blank, **json.loads(path.read_text("utf-8"))}
    except FileNotFoundError:
        return blank
    except (ValueError, TypeError):
        raise SlipwayError(
            f"{path} is damaged", "remove it and run `make deploy FORCE=1` (its history is lost)"
        ) from None


def write_state(folder: Path, state: State) -> None:
    """Replace the state whole; only the supervisor does."""
    write_atomic(folder / "state.json", json.dumps(state, indent=2).encode() + b"\n")
