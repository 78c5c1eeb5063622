"""Small images of the scoring stage that say who they are, in a registry of the stand-in."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.azure.cli import Cli
from tests.azure.standin.access import grant
from tests.azure.standin.directory import Principal, directory
from tests.docker.test_scoring_image import Build

#: GET answers 200 with the image's word and what its environment has in GREETING; /healthy-after makes
#: tests of probes possible: it answers 503 until SLOW seconds have passed.
SERVER = """
import http.server, os, signal, sys, time

WORD, BEGAN = "{word}", time.monotonic()

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        slow = time.monotonic() - BEGAN < float(os.environ.get("SLOW", "0"))
        self.send_response(503 if slow else 200)
        text = (WORD + " " + os.environ.get("GREETING", "")).encode()
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        print("asked", self.path, "at", WORD, flush=True)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("begun", WORD, flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 5001), Answer).serve_forever()
"""


class Word(Build):
    """An image whose service answers with a word."""

    def __init__(self, folder: Path, word: str) -> None:
        super().__init__(folder)
        server = self.clone.path / "bundle" / "scoring" / "server.py"
        server.write_text(SERVER.replace("{word}", word))


def push(cli: Cli, registry: str, name: str, build: Build) -> str:
    """Push a built image; its reference by digest."""
    auth = cli.authfile(cli.az("acr", "login", "-n", registry, "--expose-token"))
    there = f"docker://{registry}.azurecr.io/{name}:1"
    source = f"docker-daemon:{build.name}"
    subprocess.run(["docker", "image", "inspect", build.name], check=True, capture_output=True)
    cli.run("skopeo", "copy", "--quiet", "--dest-authfile", auth, source, there)
    seen = json.loads(cli.run("skopeo", "inspect", "--authfile", auth, there).stdout)
    return f"{registry}.azurecr.io/{name}@{seen['Digest']}"


def identity(cli: Cli, group: str, name: str, *roles: tuple[str, str]) -> tuple[str, Principal]:
    """A user-assigned identity with (role, scope) each; its id and its principal."""
    made = cli.az("identity", "create", "-g", group, "-n", name)
    principal = directory(cli.standin.world).principals[made["principalId"]]
    for role, scope in roles:
        grant(cli.standin.world, principal.object_id, role, scope)
    return made["id"], principal
