"""A lock that holds between machines: the lease on a blob in the workspace's default datastore.

Azure gives a blob's lease to one caller, for 60 seconds at most; a thread renews it while the work
goes on, so a lease whose holder died is free within a minute.
Source: https://learn.microsoft.com/rest/api/storageservices/lease-blob
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from scripts import console
from scripts.errors import SlipwayError

SECONDS = 60
RENEW = 20.0
#: How long to wait for another holder.
LIMIT = 300.0
PAUSE = 2.0


@contextmanager
def leased(datastore: Any, name: str, doing: str) -> Iterator[None]:
    """Hold the lease called `name`; SlipwayError if another machine keeps it for five minutes."""
    blob = datastore.blob_service.get_blob_client(
        container=datastore.container_name, blob=f"slipway/leases/{name}"
    )
    _make(blob)
    lease = _acquire(blob, doing)
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEW):
            # A renewal that failed is tried again; the lease outlives two of them.
            with suppress(Exception):
                lease.renew()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        # What is not given back ends by itself.
        with suppress(Exception):
            lease.release()


def _make(blob: Any) -> None:
    if not blob.exists():
        # Somebody else may be faster, and may hold it already: then it is there.
        try:
            blob.upload_blob(b"", overwrite=False)
        except Exception as error:
            if getattr(error, "status_code", None) not in (409, 412):
                raise


def _acquire(blob: Any, doing: str) -> Any:
    until, told = time.monotonic() + LIMIT, False
    while True:
        try:
            return blob.acquire_lease(lease_duration=SECONDS)
        except Exception as error:
            if getattr(error, "status_code", None) != 409:
                raise
            if time.monotonic() > until:
                raise SlipwayError(
                    f"another machine has been {doing} for {LIMIT:.0f} s",
                    "see which CI job or colleague that is, then run the verb again",
                ) from None
        if not told:
            console.step(f"another machine is {doing}; waiting for it")
            told = True
        time.sleep(PAUSE)
