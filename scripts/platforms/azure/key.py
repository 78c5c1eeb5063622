"""The service's key, which lies in the workspace's Key Vault as the secret `scoring-key`."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from typing import Any

from pydantic import SecretStr

from scripts import console
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.place import Place
from scripts.platforms.azure.refusals import AzureError

SECRET = "scoring-key"  # noqa: S105 (its name)
#: A role that was assigned a moment ago is not known everywhere at once: minutes, in seconds.
ROLE_WAIT, ROLE_PAUSE = 300.0, 10.0


def held_key(place: Place, az: Az) -> SecretStr | None:
    """The key that the vault holds; None if it has none yet."""
    found = shown(place, az, SECRET, "value")
    return SecretStr(str(found)) if found else None


def keep_key(place: Place, az: Az, held: SecretStr | None) -> SecretStr:
    """Have the vault, which holds `held`, keep the key that a deployment is given.

    SCORING_KEY where that is set; else the vault's, made there once. So on Azure a service has a key
    in any case.
    """
    wanted = az.settings.SCORING_KEY or held
    if wanted is None:
        console.step(f"making a key for the service in the vault {place.vault}")
        wanted = SecretStr(secrets.token_urlsafe(32))
    if wanted != held:
        write_key(place, az, wanted)
    return wanted


def write_key(place: Place, az: Az, key: SecretStr) -> None:
    """Have the vault hold this key."""
    _call(
        az,
        *("keyvault", "secret", "set", "--vault-name", place.vault, "--name", SECRET),
        # In one word: what stands for the value may begin with a dash.
        *("--value=@-", "--query", "id"),
        stdin=key,
    )


def fingerprint(salt: str, values: object) -> str:
    """Tells one set of secret values (as JSON takes it) from another.

    Whoever may read tags or annotations sees it. So the `salt` (an image) hides that a key is used again,
    and a guess costs as much as scrypt makes it cost: RFC 7914.
    """
    text = json.dumps(values).encode()
    return hashlib.scrypt(text, salt=salt.encode(), n=2**14, r=8, p=1, dklen=8).hex()


def shown(place: Place, az: Az, name: str, query: str, doing: str | None = None) -> Any | None:
    """What the vault has of a secret; None if it has none of that name."""
    where = ("--vault-name", place.vault, "--name", name)
    try:
        return _call(az, "keyvault", "secret", "show", *where, "--query", query, doing=doing)
    except AzureError as error:
        if not error.missing:
            raise
        return None


def _call(
    az: Az, *arguments: str, stdin: SecretStr | None = None, doing: str | None = None
) -> Any | None:
    """An az call to the vault's secrets, which waits until a fresh role is known there."""
    limit = time.monotonic() + ROLE_WAIT
    told = False
    while True:
        try:
            return az(*arguments, stdin=stdin, doing=doing)
        except AzureError as error:
            if "ForbiddenByRbac" not in error.said or time.monotonic() > limit:
                raise
        if not told:
            console.step(
                "waiting for the vault to know that this account may use its secrets: a new role takes"
                f" a while (at most {ROLE_WAIT:.0f} s)"
            )
            told = True
        time.sleep(ROLE_PAUSE)
