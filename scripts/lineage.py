"""Where a model comes from: commit, data, lock and build."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from scripts.dataset import file_sha256
from scripts.settings import Settings

LOCK = Path("docker/locks/toolbox.txt")


def git_state(root: Path) -> dict[str, Any]:
    """The commit and whether tracked files differ from it; both None outside a git checkout.

    A run on another machine is told by the one that submitted it.
    """
    if told := os.environ.get("SLIPWAY_GIT"):
        found = json.loads(told)
        return {"commit": found["commit"], "dirty": found["dirty"]}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--verify", "HEAD")
        return {
            "commit": commit,
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def lineage(root: Path, settings: Settings) -> dict[str, Any]:
    """The part of a train record that says what the model was made with."""
    return {
        "lock_sha256": file_sha256(root / LOCK),
        "git": git_state(root),
        "build_id": settings.BUILD_BUILDID,
        "build_uri": settings.BUILD_URI,
    }
