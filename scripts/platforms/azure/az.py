"""The Azure CLI as a child process: JSON out, secrets on its standard input, errors with their mend.

Every call first makes sure that somebody is signed in (login.py), without a process where az's own
profile says so. What Azure refuses only for the moment is asked again, with a growing pause and a
limit; what az prints of an error becomes one line (refusals.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import IO, Any, TypeVar

from pydantic import SecretStr

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure import login
from scripts.platforms.azure.refusals import AzureError, command, explain
from scripts.settings import SECRETS, Settings, without_secrets

T = TypeVar("T")

#: Pauses in seconds before a call is made again; az itself has tried several times by then.
PAUSES = (2.0, 6.0, 15.0)
#: Nothing that we call may take longer, in seconds.
LIMIT = 3600.0
#: How often a call that tells what it does says that it still does, in seconds.
STILL = 30.0
#: A token with less time left is fetched anew, in seconds; MSAL's own cache has the same margin.
MARGIN = 300.0

#: What az finds in its environment beyond what we say ourselves.
KEPT = ("AZURE_CONFIG_DIR", "AZURE_EXTENSION_DIR", "AZURE_POD_IDENTITY_AUTHORITY_HOST")
SAID = {
    "AZURE_CORE_COLLECT_TELEMETRY": "no",
    "AZURE_CORE_NO_COLOR": "true",
    "AZURE_CORE_SURVEY_MESSAGE": "no",
    "AZURE_CORE_LOGIN_EXPERIENCE_V2": "no",
    "AZURE_EXTENSION_USE_DYNAMIC_INSTALL": "no",
    "PYTHONWARNINGS": "ignore",
}


def environment(around: Mapping[str, str]) -> dict[str, str]:
    """What az gets of the variables `around` it: no secret, and no default that changes a command."""
    dropped = ("AZURE_", "SYSTEM_", "PYTHONPATH", "PYTHONHOME")
    kept = {
        name: value
        for name, value in without_secrets(around).items()
        if name in KEPT or not name.startswith(dropped)
    }
    return {**kept, **SAID}


class Az:
    """Calls `az`; an instance is shared by all parts of the platform, and by their threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.verbose = bool(os.environ.get("VERBOSE"))
        self._tokens: dict[str, tuple[str, float]] = {}
        self._signed_in = False
        self._refused: SlipwayError | None = None
        self._lock = threading.RLock()

    def __call__(
        self,
        *arguments: str,
        stdin: str | SecretStr | None = None,
        doing: str | None = None,
        once: bool = False,
    ) -> Any:
        """What az prints for `arguments`, parsed; None if it prints nothing.

        `stdin` is what an argument `@-` (or a file `/dev/stdin`) stands for: secrets go there, never
        into arguments. `doing` tells the user what is waited for. AzureError names what Azure said;
        the command must be one that may be made twice, unless it is to be made `once`.
        """
        self.sign_in()
        if doing:
            console.step(doing)
        given = stdin.get_secret_value() if isinstance(stdin, SecretStr) else stdin
        complete = self._complete(arguments)
        if once:
            return _parsed(self.run(complete, given, doing))
        return _parsed(self._persistently(lambda: self.run(complete, given, doing)))

    def find(self, *arguments: str, doing: str | None = None) -> Any | None:
        """Like a call, but None where Azure says that the thing is not there."""
        try:
            return self(*arguments, doing=doing)
        except AzureError as error:
            if error.missing:
                return None
            raise

    def lines(self, *arguments: str) -> Iterator[str]:
        """What az prints, line by line while it prints it; AzureError if it then fails.

        Like any call it is made again, as long as it has printed nothing.
        """
        self.sign_in()

        def begun() -> tuple[Generator[str, None, None], str | None]:
            stream = self._stream(arguments)
            return stream, next(stream, None)

        stream, first = self._persistently(begun)
        with contextlib.closing(stream):
            if first is not None:
                yield first
            yield from stream

    def _persistently(self, call: Callable[[], T]) -> T:
        """What `call` gives, with patience; after a new login where the old one has expired."""
        try:
            return patient(call)
        except AzureError as error:
            if not (error.expired and login.silent(self.settings)):
                raise
            self.sign_in(again=True)
            return patient(call)

    def _stream(self, arguments: Sequence[str]) -> Generator[str, None, None]:
        """One process, ended when the generator is closed."""
        whole = ["az", *self._complete(arguments), "--only-show-errors"]
        with self._start(whole, stdin=subprocess.DEVNULL, bufsize=1) as child:
            said: list[str] = []
            reader = threading.Thread(target=lambda: said.extend(child.stderr or ()), daemon=True)
            reader.start()
            try:
                for line in child.stdout or ():
                    yield line.rstrip("\n")
                child.wait()
            finally:
                _end(child)
            reader.join(5)
        if child.returncode:
            raise explain(command(arguments), self.clean("".join(said)), self.settings)

    def token(self, resource: str) -> tuple[str, float]:
        """An access token for `resource` and when it expires (seconds since 1970)."""
        with self._lock:
            token, expiry = self._tokens.get(resource, ("", 0.0))
            if expiry - time.time() < MARGIN:
                given = self("account", "get-access-token", "--resource", resource)
                token, expiry = str(given["accessToken"]), float(given["expires_on"])
                self._tokens[resource] = (token, expiry)
            return token, expiry

    def sign_in(self, *, again: bool = False, asked: bool = False) -> None:
        """Make sure somebody is signed in to the subscription; a process only where nobody is.

        `asked` is for `make login`, which may ask a person. What was refused once is not tried again:
        a verb with several parts would be told the same several times.
        """
        with self._lock:
            if self._signed_in and not again:
                return
            if self._refused is not None:
                raise self._refused
            if again or not login.cached(self.settings):
                try:
                    patient(lambda: login.sign_in(self.settings, self.run, asked=asked))
                except SlipwayError as error:
                    self._refused = error
                    raise
                self._tokens.clear()
            self._signed_in = True

    def run(
        self,
        arguments: Sequence[str],
        given: str | None = None,
        doing: str | None = None,
        *,
        shown: bool = False,
    ) -> str:
        """One process; what it prints. `shown` lets a person read what it says while it waits."""
        whole = ["az", *arguments, "--output", "json", "--only-show-errors"]
        if shown:
            whole.remove("--only-show-errors")  # the device code is told as a warning
        began = time.monotonic()
        told: list[str] = []
        with self._start(whole, stdin=subprocess.PIPE) as child:
            reader = threading.Thread(target=_show, args=(child.stderr, told), daemon=True)
            if shown:
                child.stderr = None  # communicate() would keep it until the end
                reader.start()
            try:
                rest: str | None = given or ""
                while True:
                    try:
                        printed, said = child.communicate(rest, timeout=STILL)
                        break
                    except subprocess.TimeoutExpired:
                        rest = None
                        spent = time.monotonic() - began
                        if spent > LIMIT:
                            raise SlipwayError(
                                f"az {arguments[0]} did not end within {LIMIT:.0f} s",
                                "look in the Azure portal what is at work there, then try again",
                            ) from None
                        if doing:
                            console.step(f"{doing}: {spent:.0f} s so far")
            finally:
                _end(child)
        if shown:
            reader.join(5)
            said = "".join(told)
        if child.returncode:
            raise explain(command(arguments), self.clean(said or "", given), self.settings)
        return printed

    def clean(self, text: str, given: str | None = None) -> str:
        """`text` without any secret that we know of."""
        for value in (*self._secrets(), *(given or "").splitlines()):
            if len(value) >= 6:
                text = text.replace(value, "(secret)")
        return text

    def _secrets(self) -> Iterator[str]:
        for name in SECRETS:
            value = getattr(self.settings, name)
            if isinstance(value, SecretStr):
                yield value.get_secret_value()
        yield from (token for token, _ in self._tokens.values())

    def _complete(self, arguments: Sequence[str]) -> list[str]:
        """The arguments, and the subscription they are for."""
        return [*arguments, "--subscription", self.settings.require("SUBSCRIPTION_ID")]

    def _start(self, command: list[str], **how: Any) -> subprocess.Popen[str]:
        """Begin a process in a group of its own, so that all of it can be ended."""
        if self.verbose:
            print(f"  $ {shlex.join(command)}", file=sys.stderr, flush=True)
        how = {"stderr": subprocess.PIPE, **how}
        try:
            return subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                env=environment(os.environ),
                text=True,
                process_group=0,
                **how,
            )
        except FileNotFoundError:
            raise UsageError(
                "the Azure CLI is not installed here",
                "start Docker, or use RUNNER=venv, which installs it",
            ) from None


def patient(call: Callable[[], T]) -> T:
    """What `call` gives; made again, after a pause, where Azure refuses for the moment only."""
    for pause in PAUSES:
        try:
            return call()
        except AzureError as error:
            if not error.passing:
                raise
            pause *= random.uniform(0.8, 1.2)  # noqa: S311 (two callers should not keep in step)
            console.step(f"{error.message[:160]}; trying again in {pause:.0f} s")
            time.sleep(pause)
    return call()


def _show(stream: IO[str], told: list[str]) -> None:
    """Copy the lines to the terminal as they come, and keep them."""
    with stream:
        for line in stream:
            print(line, end="", file=sys.stderr, flush=True)
            told.append(line)


def _end(child: subprocess.Popen[str]) -> None:
    """End what still runs: politely, so that az can tell a server, then for good."""
    for number, seconds in ((signal.SIGINT, 5), (signal.SIGKILL, 5)):
        if child.poll() is not None:
            return
        try:
            os.killpg(child.pid, number)
            child.wait(seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _parsed(printed: str) -> Any:
    try:
        return json.loads(printed) if printed.strip() else None
    except ValueError:
        first = printed.strip().splitlines()[0][:200]
        raise SlipwayError(
            f"az printed no JSON: {first}", "see `az version`; 2.74 or later"
        ) from None
