"""A run as the user sees it while it works: what it waits for, then its log line by line."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from scripts import console
from scripts.errors import Refused, SlipwayError, UsageError
from scripts.platforms.azure.compute import lack_of_nodes
from scripts.platforms.azure.workspace import enduring, explained, silenced
from scripts.records import Records

if TYPE_CHECKING:
    from scripts.platforms.azure.tracking import AzureTracking

ENDED = ("Completed", "Failed", "Canceled", "NotResponding")
#: Nobody waits for such a run: it has ended or is about to.
OVER = (*ENDED, "CancelRequested")
#: What a status means for somebody who waits.
WAITING = {
    "NotStarted": "the run is about to start",
    "Queued": "waiting for a node of the cluster, which takes minutes where it has to start one",
    "Provisioning": "the cluster is starting a node",
    "Preparing": "preparing the environment",
    "Starting": "the node is pulling the toolbox image",
    "Running": "running",
    "Finalizing": "collecting what the run left",
    "CancelRequested": "being cancelled",
}
#: Logs of the user's code: with today's runtime and with the one before.
LOGS = ("user_logs/std_log.txt", "azureml-logs/70_driver_log.txt")
PAUSES = (1.0, 2.0, 3.0, 5.0)
#: Pauses in seconds while a run is followed and Azure does not answer; it goes on meanwhile.
FAULT_PAUSES = (5.0,) * 8
#: How long a run is queued, in seconds, before its cluster is asked why there is no node, and again.
QUEUED = 60.0
#: Lines of the log that a failure shows.
TAIL = 20


class Follower:
    """Follows one run until it has ended; `whole` is the pipeline's run that it is a step of."""

    def __init__(self, run: Any, whole: Any = None) -> None:
        self.run = run
        self.whole = whole or run
        self._shown = 0
        self._said = ""
        self._asked = 0.0

    def follow(self, again: str) -> str:
        """Print what happens until the run has ended; returns its last status.

        Ctrl-C passes through, after whoever is at the terminal was asked what becomes of the run.
        """
        count = 0
        try:
            while True:
                status = enduring(self.look, FAULT_PAUSES)
                if status in ENDED:
                    return status
                time.sleep(PAUSES[min(count, len(PAUSES) - 1)])
                count += 1
        except KeyboardInterrupt:
            ask_to_cancel(self.run, again)
            raise

    def look(self) -> str:
        """Print what is new; returns the status. SlipwayError if no node will ever come."""
        with explained(f"run {self.run.id}"), silenced():
            details = self.run.get_details()
        status = str(details["status"])
        if status != self._said and status not in ENDED:
            console.step(WAITING.get(status, status.lower()))
            self._said = status
            self._asked = time.monotonic()
        cluster = details.get("target")
        if status == "Queued" and cluster and time.monotonic() - self._asked >= QUEUED:
            self._asked = time.monotonic()
            self._ask_cluster(str(cluster))
        # Its end may only be there once the run has ended.
        for line in self._new_lines(details, whole=status in ENDED):
            console.step(f"| {line}")
        return status

    def _ask_cluster(self, cluster: str) -> None:
        """Azure queues a run for ever where the quota has no room for a node."""
        why = lack_of_nodes(self.run.experiment.workspace, cluster)
        if not why:
            return
        if "quota" not in why.lower():
            console.step(f"cluster {cluster} has no node yet: {why}")
            return
        cancel(self.whole)
        raise SlipwayError(
            f"cluster {cluster} has no node: {why}",
            "ask for more quota in the portal, or choose a SKU or region with quota; "
            "the next call starts a new run",
        )

    def _new_lines(self, details: dict[str, Any], *, whole: bool) -> list[str]:
        text = log_text(details)
        lines = text.splitlines()
        # A line that is still being written is shown when it is complete.
        ready = len(lines) if whole or text.endswith("\n") else max(len(lines) - 1, 0)
        fresh = lines[self._shown : ready]
        self._shown = max(self._shown, ready)
        return fresh


def ask_to_cancel(run: Any, again: str) -> None:
    """Ctrl-C: the run costs money, so whoever is at the terminal decides whether it goes on."""
    answer = ""
    if sys.stdin.isatty() and sys.stdout.isatty():
        try:
            answer = input(f"\n  cancel run {run.id} on Azure? [y/N] ")
        except (EOFError, KeyboardInterrupt):
            answer = ""
    if answer.strip().lower() in ("y", "yes"):
        cancel(run)
    else:
        console.step(f"run {run.id} goes on without us; {again}")
        console.step(f"its page, where it can be cancelled: {run.get_portal_url()}")


def cancel(run: Any) -> None:
    """Cancel the run, and say so."""
    with explained(f"run {run.id}"), silenced():
        run.cancel()
    console.step(f"run {run.id} is cancelled")


def log_text(details: dict[str, Any]) -> str:
    """The log of the user's code so far, "" while there is none."""
    import requests

    files = details.get("logFiles") or {}
    name = next((name for name in LOGS if name in files), None)
    if name is None:
        return ""
    with suppress(requests.RequestException):
        answer = requests.get(files[name], timeout=30)
        if answer.ok:
            answer.encoding = "utf-8"
            return answer.text
    return ""


def failure(tracking: AzureTracking, run: Any, status: str, verb: str) -> SlipwayError:
    """Why the run did not complete, as the error that the verb itself would have raised."""
    if status == "Canceled":
        return SlipwayError(
            f"run {run.id} was cancelled", f"run `make {verb}` again, which starts a new one"
        )
    try:
        left = Records(tracking.download(str(run.id), "records")).find_failed(verb)
    except SlipwayError:
        left = None
    if left is not None:
        kind = {2: UsageError, 3: Refused}.get(left["code"], SlipwayError)
        return kind(str(left["message"]), str(left["mend"]))
    with explained(f"run {run.id}"), silenced():
        details = run.get_details()
    said = ((details.get("error") or {}).get("error") or {}).get("message") or "no reason given"
    tail = log_text(details).splitlines()[-TAIL:]
    for line in tail:
        console.step(f"| {line}")
    portal = run.get_portal_url()
    return SlipwayError(
        f"run {run.id} {status.lower()}: {' '.join(str(said).split())[:400]}",
        f"see its log at {portal}, then run `make {verb}` again",
    )
