"""Looking for secrets: in the command lines and environments of processes, in files, in image layers."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.azure.conftest import AzureClone
from tests.azure.standin.world import World

#: What az keeps its own login in.
LOGINS = ("msal_token_cache", "service_principal_entries")
#: Shorter texts may stand anywhere by chance.
SHORTEST = 12


def known(clone: AzureClone) -> dict[str, str]:
    """Every secret there is now, by what it is."""
    world = clone.standin.world
    found = {"the application's secret": world.app_secret}
    found |= {f"{name} of {key}": value for (key, name), value in world.keys.items()}
    for file in (clone.home / ".azure").glob("msal_token_cache*"):
        cache = json.loads(file.read_text() or "{}")
        for kind in ("AccessToken", "RefreshToken", "IdToken"):
            for entry in (cache.get(kind) or {}).values():
                # The signature: the rest of a token says only who somebody is.
                found[f"a token of az ({kind})"] = entry["secret"].rpartition(".")[2]
    found |= {f"the vault's secret {name}": value for name, value in vault_secrets(world)}
    return {what: value for what, value in found.items() if len(value) >= SHORTEST}


def vault_secrets(world: World) -> Iterator[tuple[str, str]]:
    """Names and values of the secrets in all key vaults."""
    for rooms in world.rooms.get("vault contents", {}).values():
        for room in rooms.values():
            for name, versions in room.kept.items():
                yield from ((name, each["value"]) for each in versions if "value" in each)


class Watch(threading.Thread):
    """Reads the process list until it is stopped; `seen` are processes that show a secret."""

    def __init__(self, clone: AzureClone) -> None:
        super().__init__(name="watch", daemon=True)
        self.clone = clone
        self.seen: set[str] = set()
        self.processes: set[str] = set()
        self._over = threading.Event()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        refreshed, secrets = 0.0, known(self.clone)
        while not self._over.wait(0.02):
            if time.monotonic() - refreshed > 1:
                # A cache that is being written is read the next time.
                try:
                    secrets = known(self.clone)
                except (OSError, ValueError, RuntimeError):
                    continue
                refreshed = time.monotonic()
            self._look(secrets)

    def _look(self, secrets: Mapping[str, str]) -> None:
        ours = f"HOME={self.clone.home}\0".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_bytes()
                around = (folder / "environ").read_bytes()
            except OSError:
                continue
            mine = ours in around + b"\0"
            if mine:
                self.processes.add(line.replace(b"\0", b" ").decode("utf-8", "replace")[:60])
            for what, secret in secrets.items():
                if secret.encode() in line:
                    self.seen.add(f"{what} in the command line {line[:120]!r}")
                if mine and secret.encode() in around:
                    self.seen.add(f"{what} in the environment of {line[:120]!r}")


def files(folders: Iterable[Path]) -> Iterator[Path]:
    """All files below; what az keeps its login in is left out."""
    for folder in folders:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if path.is_file() and not path.is_symlink() and not path.name.startswith(LOGINS):
                yield path


def found_in(folders: Iterable[Path], secrets: Mapping[str, str]) -> list[str]:
    """Files that hold a secret, layers of images unpacked."""
    found = []
    for path in files(folders):
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            try:
                content += gzip.decompress(content)
            except (OSError, EOFError, zlib.error):
                found.append(f"{path} cannot be unpacked")
        found += [
            f"{what} in {path}" for what, secret in secrets.items() if secret.encode() in content
        ]
    return found
