"""The Azure CLI as a child process: JSON out, secrets on its standard input, errors with their mend."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.settings import Settings


class Az:
    """Calls `az`; an instance is shared by all parts of the platform."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __call__(self, *arguments: str, stdin: str | None = None, doing: str | None = None) -> Any:
        """What az prints for `arguments`, parsed; None if it prints nothing.

        `stdin` is what an argument `@-` or `@/dev/stdin` stands for: secrets go there, never into
        arguments. `doing` tells the user what is waited for. SlipwayError names what Azure said.
        """
        if doing:
            console.step(doing)
        try:
            done = subprocess.run(
                ["az", *arguments, "--output", "json", "--only-show-errors"],
                input=stdin or "",
                capture_output=True,
                text=True,
            )
        except FileNotFoundError:
            raise UsageError(
                "the Azure CLI is not installed here",
                "start Docker, or use RUNNER=venv, which installs it",
            ) from None
        if done.returncode:
            raise SlipwayError(f"az {arguments[0]}: {done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else None
