"""The real azureml-sdk in a process of its own, which a stand-in is Azure for.

Started with a stand-in's environment it reads snippets of Python, one JSON string a line, runs each in
the same namespace and answers with what the snippet left in `result`, or with its error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

#: What every snippet begins with: `ws` is the workspace, `auth` its token.
BEGIN = """
import os, warnings
warnings.filterwarnings("ignore")
from azureml.core import Run, Workspace
from azureml.core.authentication import TokenAuthentication

class Token(TokenAuthentication):
    def _get_all_subscription_ids(self):
        return [], None
    def _check_if_subscription_exists(self, *arguments):
        return True

# Tests need not wait as long as people.
Run._WAIT_COMPLETION_POLLING_INTERVAL_MIN = Run._WAIT_COMPLETION_POLLING_INTERVAL_MAX = 0.3
auth = Token(lambda resource: os.environ["TOKEN"], cloud="AzureCloud")
ws = Workspace.get(os.environ["WORKSPACE"], auth=auth, subscription_id=os.environ["SUBSCRIPTION"],
                   resource_group=os.environ["GROUP"])
"""


class ClientError(Exception):
    """What the SDK raised: its type's name and message."""


class MlClient:
    """The process; `folder` is where its snippets run and write."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.printed = ""
        self.do(BEGIN)

    def do(self, snippet: str) -> Any:
        """Run a snippet; what it left in `result`. ClientError with what it raised."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(snippet) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the client ended with {self._process.wait(10)}"
        answer = json.loads(line)
        self.printed = answer["printed"]
        if answer["error"]:
            raise ClientError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    space: dict[str, Any] = {}
    for line in sys.stdin:
        space["result"] = None
        printed, error = StringIO(), ""
        try:
            with redirect_stdout(printed):
                exec(json.loads(line), space)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
            if os.environ.get("VERBOSE"):
                import traceback

                traceback.print_exc()
        answer = {"result": space["result"], "error": error, "printed": printed.getvalue()}
        print(json.dumps(answer, default=str), file=answers, flush=True)
    # The SDK's own threads do not end by themselves.
    os._exit(0)


if __name__ == "__main__":
    main()
