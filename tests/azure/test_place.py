"""Where things are and the service's key, as the other parts of the platform ask for them."""

from __future__ import annotations

import os
import threading
import time

import pytest
from pydantic import SecretStr

from scripts.platforms.azure.az import Az
from scripts.platforms.azure.key import SECRET, held_key, keep_key
from scripts.platforms.azure.names import ARM
from scripts.platforms.azure.place import Place, place
from scripts.settings import Settings, load_settings
from tests.azure.conftest import AzureClone
from tests.azure.standin.faults import Fault
from tests.azure.standin.messages import Refused
from tests.azure.test_login import seen_secrets

pytestmark = pytest.mark.azure


def _here(clone: AzureClone, monkeypatch: pytest.MonkeyPatch, **more: str) -> tuple[Settings, Az]:
    """The clone's settings and az in this process."""
    environment = clone.environment()
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(clone.path, more)
    return settings, Az(settings)


def test_place_key_and_token(azure_clone: AzureClone, monkeypatch: pytest.MonkeyPatch) -> None:
    azure_clone.run("provision")
    world = azure_clone.standin.world
    settings, az = _here(azure_clone, monkeypatch)
    mark = len(world.calls)
    where = place(azure_clone.path, settings, az)
    assert where == Place.of(azure_clone.records["provision"])
    assert len(world.calls) == mark  # the record tells

    # Another machine, or after `make clean`: the deployment tells the same.
    (azure_clone.folder / "provision.json").unlink()
    assert place(azure_clone.path, settings, az) == where

    # A key is made once, and set where SCORING_KEY says another.
    assert held_key(where, az) is None
    made = keep_key(where, az, None)
    assert len(made.get_secret_value()) >= 40
    assert held_key(where, az) == made
    wanted = "-a-key-that-a-person-has-chosen"
    _, other = _here(azure_clone, monkeypatch, SCORING_KEY=wanted)
    seen: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.extend(seen_secrets(wanted))
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert keep_key(where, other, made) == SecretStr(wanted)
    done.set()
    watcher.join()
    assert seen == []
    assert held_key(where, az) == SecretStr(wanted)
    shown = azure_clone.az(
        *("keyvault", "secret", "show", "--vault-name", where.vault, "--name", SECRET)
    )
    assert shown["value"] == wanted

    # A token is kept in memory until it is nearly over.
    token, expiry = az.token(ARM)
    assert expiry > time.time() + 300
    mark = len(world.calls)
    assert az.token(ARM) == (token, expiry)
    assert len(world.calls) == mark

    # What is read line by line is asked for again too, where Azure refuses for the moment.
    busy = Refused(409, "AnotherOperationInProgress", "Another operation is in progress.")
    fault = world.faults.add(
        Fault(r"GET https://[^/]+/subscriptions/[^/]+/resourcegroups[?]", busy)
    )
    assert where.group in "".join(az.lines("group", "list", "--query", "[].name"))
    assert fault.hits == 1
