"""A lock that holds between machines: the lease on a blob in the workspace's default datastore.

Azure gives a blob's lease to one caller, for 60 seconds at most; a thread renews it while the work
goes on, so a lease whose holder died is free within a minute.
Source: https://learn.microsoft.com/rest/api/storageservices/lease-blob
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from scripts import console
from scripts.errors import SlipwayError

SECONDS = 60
RENEW = 20.0
#: How long to wait for another holder.
LIMIT = 300.0
PAUSE = 2.0
#: What storage answers to the renewal of a lease that is gone or another's.
LOST = (404, 409, 412)


@contextmanager
def leased(
    datastore: Any, name: str, doing: str, limit: float = LIMIT
) -> Iterator[Callable[[], None]]:
    """Hold the lease called `name`; SlipwayError if another machine keeps it for `limit` seconds.

    Gives a check to be made right before what must not be done twice: SlipwayError if the lease was
    lost meanwhile.
    """
    blob = datastore.blob_service.get_blob_client(
        container=datastore.container_name, blob=f"slipway/leases/{name}"
    )
    _make(blob)
    held = _Held(*_acquire(blob, doing, limit), doing)
    thread = threading.Thread(target=held.renew, daemon=True)
    thread.start()
    try:
        yield held.check
    finally:
        held.done.set()
        thread.join()
        # What is not given back ends by itself.
        with suppress(Exception):
            held.lease.release()


class _Held:
    """A lease, and until when it is ours for certain."""

    def __init__(self, lease: Any, since: float, doing: str) -> None:
        self.lease, self.doing = lease, doing
        self.done = threading.Event()
        self._until = since + SECONDS

    def renew(self) -> None:
        while not self.done.wait(RENEW):
            asked = time.monotonic()
            try:
                self.lease.renew()
                self._until = asked + SECONDS
            except Exception as error:
                # Tried again otherwise; the lease outlives two renewals that failed.
                if getattr(error, "status_code", None) in LOST:
                    self._until = asked
                    return

    def check(self) -> None:
        if time.monotonic() >= self._until:
            raise SlipwayError(
                f"the lock on {self.doing} was lost: storage did not answer for {SECONDS} s, "
                "or somebody broke the lease",
                "run the verb again",
            )


def _make(blob: Any) -> None:
    if not blob.exists():
        # Somebody else may be faster, and may hold it already: then it is there.
        try:
            blob.upload_blob(b"", overwrite=False)
        except Exception as error:
            if getattr(error, "status_code", None) not in (409, 412):
                raise


def _acquire(blob: Any, doing: str, limit: float) -> tuple[Any, float]:
    """The lease, and when it began at the earliest."""
    until, told = time.monotonic() + limit, False
    while True:
        asked = time.monotonic()
        try:
            return blob.acquire_lease(lease_duration=SECONDS), asked
        except Exception as error:
            if getattr(error, "status_code", None) != 409:
                raise
            if asked > until:
                raise SlipwayError(
                    f"another machine has been {doing} for {limit:.0f} s",
                    "see which CI job or colleague that is, then run the verb again",
                ) from None
        if not told:
            console.step(f"another machine is {doing}; waiting for it")
            told = True
        time.sleep(PAUSE)
