"""`make sandbox`: the stand-in for someone who wants to see the Azure flow before paying for it."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from shutil import which

import certifi

from tests.azure.standin.standin import StandIn, engine_answers
from tests.azure.standin.world import APP, SUBSCRIPTION, TENANT

NOTICE = """\
*************************************************************************
*  THIS IS NOT AZURE. It is a stand-in on this machine: nothing here    *
*  costs anything, nothing here is kept, and what works here is known   *
*  to speak Azure's protocol, no more.                                  *
*************************************************************************
"""

#: Programs that the stand-in starts, and how to get them.
NEEDED = {
    "azurite-blob": "npm install --global azurite",
    "docker-registry": "apt-get install docker-registry",
    "skopeo": "apt-get install skopeo",
}

#: Where mmdebstrap's packages come from, which are asked for as if the stand-in were not there.
PACKAGES = "debian.org"


def surroundings(standin: StandIn, folder: Path) -> dict[str, str]:
    """What a shell needs so that Azure is the stand-in; Debian's packages come from where they do."""
    # Where certificates were named, SSL_CERT_FILE already holds this machine's as well.
    known = os.environ.get("SSL_CERT_FILE") or certifi.where()
    trusted = folder / "trusted.pem"
    trusted.write_bytes(standin.world.ca_file.read_bytes() + Path(known).read_bytes())
    return {
        **standin.environment(folder / "home"),
        **dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"), str(trusted)),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), PACKAGES),
    }


def settings_text(standin: StandIn) -> str:
    """What .env must hold for the sandbox; the secret is the sandbox's own and opens nothing else."""
    settings = {
        "PLATFORM": "azure",
        "SUBSCRIPTION_ID": SUBSCRIPTION,
        "TENANT_ID": TENANT,
        "SP_APP_ID": APP,
        "SP_APP_SECRET": standin.world.app_secret,
        "BASE_NAME": "sandbox",
        "WORKSPACE_NAME": "sandbox",
        "ACI_DEPLOYMENT_NAME": "sandbox-aci",
        "ALLOW_HTTP": "true",
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())


def main(argv: list[str] | None = None) -> int:
    """Run until Ctrl-C; `sandbox.sh` in the folder is what another terminal reads."""
    parser = argparse.ArgumentParser(prog="make sandbox", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/sandbox"))
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(argv)
    folder = options.folder.resolve()
    missing = [f"{name} ({mend})" for name, mend in NEEDED.items() if which(name) is None]
    if missing:
        print(f"error: the sandbox needs {', '.join(missing)}", file=sys.stderr)
        print("  mend: install them, or set RUNNER=here or venv where they are", file=sys.stderr)
        return 2
    # A pipe, for a handler that sets an event may interrupt the very one that waits for it.
    ended, end = os.pipe()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.write(end, b"."))
    # Azure has engines of its own, whatever the caller's runner may use.
    standin = StandIn(folder, Path(__file__).parents[3], docker=engine_answers(), port=options.port)
    script = folder / "sandbox.sh"
    # A login of a sandbox before this one opens nothing here.
    shutil.rmtree(folder / "home" / ".azure", ignore_errors=True)
    environment = surroundings(standin, folder)
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    script.unlink(missing_ok=True)
    handle = os.open(script, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as stream:
        stream.write(text + settings_text(standin))
    print(NOTICE)
    if not standin.world.docker:
        print("No Docker engine: runs are processes here, and nothing can be deployed.\n")
    runner = "venv" if os.environ.get("SLIPWAY_ENGINE") == "none" else "here"
    print(f"In another terminal:\n\n  . {shlex.quote(str(script))}\n  make all RUNNER={runner}\n")
    print(
        "Ctrl-C ends it, and all it holds is gone; `make clean` there forgets the records of it.",
        flush=True,
    )
    try:
        os.read(ended, 1)
    finally:
        standin.close()
        script.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
