"""The Azure ML workspace through azureml-sdk, signed in with az's token.

`azureml` is imported here and in the functions that use it, never when a module is loaded: it takes
seconds. What it raises becomes a `SlipwayError` with the mend; what it prints and logs of its own is
kept from the user.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure.az import PAUSES, Az
from scripts.platforms.azure.place import place
from scripts.settings import Settings

T = TypeVar("T")

#: Whose errors are Azure's answers or the network's, not a mistake of ours.
FOREIGN = ("azureml", "azure", "msrest", "requests", "urllib3")


def quiet() -> None:
    """No telemetry, no warnings and no log lines of the SDK."""
    warnings.simplefilter("ignore")
    for name in ("azureml", "azure", "msrest", "urllib3", "cli", "knack"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # Metrics are sent at once, and nothing of a user's is collected.
    os.environ.setdefault("AZUREML_METRICS_POLLING_INTERVAL", "1")
    os.environ.setdefault("RSLEX_DISABLE_TELEMETRY", "1")
    # A transfer is tried five times within each of these tries, which would take five minutes.
    os.environ.setdefault("AZUREML_DEFAULT_RETRIES", "1")
    os.environ.setdefault("AZUREML_DEFAULT_BACKOFF", "4")
    with contextlib.suppress(ImportError), silenced():
        import azureml.telemetry

        azureml.telemetry.HBI_MODE = True


@contextmanager
def silenced() -> Iterator[None]:
    """Keep what the SDK prints from the user's terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def authentication(az: Az) -> Any:
    """The SDK's authentication object: it asks for a token whenever it needs one, `az` renews it."""
    from azureml.core.authentication import TokenAuthentication

    class AzAuthentication(TokenAuthentication):  # type: ignore[misc]
        """With az's login; the subscriptions it sees are not listed, the workspace's is known."""

        def _get_azureml_client_token(self) -> str:
            return str(self._get_arm_token())

        def _check_if_subscription_exists(self, *arguments: Any) -> bool:
            return True

        def _get_all_subscription_ids(self) -> Any:
            return [], None

    return AzAuthentication(lambda resource: az.token(str(resource))[0], cloud="AzureCloud")


def open_workspace(root: Path, settings: Settings, az: Az) -> Any:
    """The workspace; SlipwayError with the mend if it is not there or not ours to use."""
    where = place(root, settings, az)
    # Here, and not when the SDK wants a token: it would not be seen.
    az.sign_in()
    console.step(f"opening Azure ML workspace {where.workspace}")
    quiet()

    def opened() -> Any:
        with explained(f"workspace {where.workspace}"), silenced():
            from azureml.core import Workspace

            known = (where.subscription, where.group, where.workspace)
            return Workspace(*known, auth=authentication(az))

    # Later calls are repeated by the SDK itself; this one hardly.
    return enduring(opened, PAUSES)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn what the SDK and its HTTP clients raise into one line with the mend."""
    try:
        yield
    except SlipwayError:
        raise
    except Exception as error:
        ours = type(error).__module__.partition(".")[0] not in FOREIGN
        if ours and _bare_status(error) is None:
            raise
        raise explain(doing, error) from error


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status behind an error of the SDK, if there is one."""
    seen = 0
    while error is not None and seen < 5:
        response = getattr(error, "response", None)
        for holder in (error, response):
            code = getattr(holder, "status_code", None)
            if isinstance(code, int):
                return code
        if code := _bare_status(error):
            return code
        error = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__
        seen += 1
    return None


def _bare_status(error: BaseException) -> int | None:
    """The HTTP status in the text of a plain Exception, which the SDK raises for environments.

    Source: azureml-core _restclient/environment_client.py.
    """
    found = re.match(r"Error .*Code: (\d{3})$", str(error), re.MULTILINE)
    return int(found.group(1)) if found and type(error) is Exception else None


def sentence(error: BaseException) -> str:
    """What the service said, as one line: without the headers and ids the SDK shows with it."""
    text = str(getattr(error, "message", "") or error)
    if found := re.search(r'"message"\s*:\s*"((?:[^"\\]|\\.)+)"', text):
        text = found.group(1).replace('\\"', '"')
    elif found := re.search(r"^\s*Message:\s*(.+)$", text, re.MULTILINE):
        text = found.group(1)
    text = text.replace("\\'", "'")
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return (line or type(error).__name__)[:400]


def enduring(call: Callable[[], T], pauses: Sequence[float]) -> T:
    """What `call` gives; made again, after each of the pauses (s), where Azure fails for the moment only."""
    for pause in pauses:
        try:
            return call()
        except SlipwayError as error:
            if not passing(error.__cause__):
                raise
            console.step(f"{error.message[:160]}; trying again in {pause:.0f} s")
            time.sleep(pause)
    return call()


def passing(error: BaseException | None) -> bool:
    """Whether what failed may succeed when it is done again."""
    status = status_of(error)
    if status is not None:
        return status == 429 or status >= 500
    return error is not None and "connection" in sentence(error).lower()


def explain(doing: str, error: Exception) -> SlipwayError:
    """The error as the user should see it."""
    status, said = status_of(error), sentence(error)
    line = f"{doing}: Azure ML says: {said}" + (f" ({status})" if status else "")
    if status == 401 or "access token" in said.lower():
        return SlipwayError(line, "run `make login`, then the verb again")
    if status == 403:
        return UsageError(
            line, "have an Owner give you the role `AzureML Data Scientist` or Contributor there"
        )
    if status == 404 and doing.startswith("workspace"):
        return UsageError(line, "run `make provision`, or correct WORKSPACE_NAME in .env")
    if status == 429 or (status is not None and status >= 500):
        return SlipwayError(line, "Azure is busy or down for the moment: run the verb again later")
    if "snapshot" in said.lower() and any(word in said for word in ("exceed", "limit", "large")):
        return UsageError(line, "move large files out of model/; data belongs where DATA_PATH says")
    if "quota" in said.lower():
        return SlipwayError(line, "ask for more quota in the portal, or choose a smaller SKU")
    lost = any(word in said.lower() for word in ("connection", "flush task queue"))
    if lost or type(error).__module__.startswith(("requests", "urllib3")):
        return SlipwayError(line, "check the network and the proxy, then run the verb again")
    return SlipwayError(line, "VERBOSE=1 shows all that Azure said")
