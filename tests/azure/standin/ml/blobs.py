"""The blobs of storage accounts: an azurite behind each account's own host, started when first asked for.

Shared keys and SAS are checked by azurite itself. Signatures as in the Storage services REST reference,
"Authorize with Shared Key" and "Create a service SAS" (version 2019-02-02, the last without encryption scopes).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import os
import secrets
import socket
import subprocess
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlencode

from tests.azure.standin.messages import Answer, Refused, Request
from tests.azure.standin.resources import of_type
from tests.azure.standin.world import Backend, World

ACCOUNTS = "Microsoft.Storage/storageAccounts"
SUFFIX = ".blob.core.windows.net"
VERSION = "2019-02-02"
#: azurite ends when this process does, however it ends: then its guard's input is at its end.
GUARD = 'azurite-blob "$@" & child=$!; cat > /dev/null; kill $child; wait $child'


class Account:
    """The blobs of one storage account."""

    def __init__(self, name: str, key: str, folder: Path) -> None:
        self.name, self.key = name, key
        self.host = name + SUFFIX
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port)]
        quiet = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
        with (folder / "azurite.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", GUARD, "azurite", "--location", str(folder), *options, *quiet],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**_plain(os.environ), "AZURITE_ACCOUNTS": f"{name}:{key}"},
            )
        self._wait()

    def _wait(self) -> None:
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            if self._process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("azurite does not start; is azurite-blob (npm: azurite) on PATH?")

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(20)

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """One request with the account's key: status and body."""
        query = dict(query or {})
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        sent = {"x-ms-date": date, "x-ms-version": VERSION, **(headers or {})}
        own = "\n".join(f"{n}:{v}" for n, v in sorted(sent.items()) if n.startswith("x-ms-"))
        asked = "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
        # 2015-02-21 and later: the length is empty where it is zero.
        length = str(len(body)) if body else ""
        text = f"{method}\n\n\n{length}\n\n\n\n\n\n\n\n\n{own}\n/{self.name}{quote(path)}{asked}"
        sent |= {
            "Authorization": f"SharedKey {self.name}:{self._sign(text)}",
            "Host": self.host,
            "Content-Length": str(len(body)),
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            target = quote(path) + (f"?{urlencode(query)}" if query else "")
            connection.request(method, target, body=body, headers=sent)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _sign(self, text: str) -> str:
        digest = hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()
        return base64.b64encode(digest).decode()

    def ensure_container(self, name: str) -> None:
        status, answer = self.request("PUT", f"/{name}", {"restype": "container"})
        if status not in (201, 409):
            raise RuntimeError(f"azurite: {status} {answer!r}")

    def put(self, container: str, blob: str, content: bytes) -> None:
        kind = {"x-ms-blob-type": "BlockBlob"}
        status, answer = self.request("PUT", f"/{container}/{blob}", body=content, headers=kind)
        if status != 201:
            raise RuntimeError(f"azurite: {status} {answer!r}")

    def get(self, container: str, blob: str) -> bytes | None:
        """A blob's content, None if there is none."""
        status, answer = self.request("GET", f"/{container}/{blob}")
        return answer if status == 200 else None

    def names(self, container: str, prefix: str) -> list[str]:
        """The names of the blobs that begin so."""
        found: list[str] = []
        marker = ""
        while True:
            query = {"restype": "container", "comp": "list", "prefix": prefix}
            if marker:
                query["marker"] = marker
            status, answer = self.request("GET", f"/{container}", query)
            if status != 200:
                return found
            tree = ElementTree.fromstring(answer.decode("utf-8-sig"))
            found += [name.text or "" for name in tree.iterfind("Blobs/Blob/Name")]
            marker = tree.findtext("NextMarker") or ""
            if not marker:
                return found

    def sas(self, container: str, blob: str, permissions: str) -> str:
        """The blob's address with a SAS for a day."""
        end = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        resource = f"/blob/{self.name}/{container}/{blob}"
        fields = [permissions, "", end, resource, "", "", "https,http", VERSION, "b", *[""] * 6]
        query = {
            "sv": VERSION,
            "sr": "b",
            "spr": "https,http",
            "se": end,
            "sp": permissions,
            "sig": self._sign("\n".join(fields)),
        }
        return f"https://{self.host}/{container}/{quote(blob)}?{urlencode(query)}"


class Blobs:
    """The accounts that are at work."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}
        world.finders.append(self._backend)
        world.closing.append(self._close)

    def account(self, storage_id: str) -> Account:
        """The account of a storage account's resource; Refused (404) if that is gone."""
        key = storage_id.lower()
        resource = self._world.resources.get(key)
        if resource is None:
            raise Refused(404, "ResourceNotFound", f"The storage account '{key}' was not found.")
        secret = account_key(self._world, key)
        with self._lock:
            kept = self._accounts.get(key)
            if kept is not None and kept.key != secret:
                # Deleted and made again: nothing of the old one is left.
                kept.close()
                kept = None
            if kept is None:
                folder = self._world.folder / "blobs" / f"{resource['name']}-{secrets.token_hex(3)}"
                kept = self._accounts[key] = Account(str(resource["name"]), secret, folder)
            return kept

    def _backend(self, host: str) -> Backend | None:
        if not host.endswith(SUFFIX):
            return None
        name = host.removesuffix(SUFFIX)
        for resource in of_type(self._world, ACCOUNTS):
            if str(resource["name"]).lower() == name:
                account = self.account(str(resource["id"]))
                keys = resource["properties"].get("allowSharedKeyAccess", True)
                return Backend(("127.0.0.1", account.port), admit=None if keys else _no_keys)
        return None

    def _close(self) -> None:
        for account in self._accounts.values():
            account.close()


class StorageRefused(Refused):
    """The storage services' own error body. Source: their REST reference, status and error codes."""

    def answer(self) -> Answer:
        text = f"<Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>"
        headers = {"Content-Type": "application/xml", "x-ms-error-code": self.code}
        return Answer(self.status, f'<?xml version="1.0" encoding="utf-8"?>{text}', headers)


def _no_keys(request: Request) -> None:
    """azurite knows keys and SAS only. Source: Storage services REST reference, error codes."""
    raise StorageRefused(
        403,
        "KeyBasedAuthenticationNotPermitted",
        "Key based authentication is not permitted on this storage account.",
    )


def account_key(world: World, storage_id: str) -> str:
    """A storage account's first key; made when it is first asked for."""
    fresh = base64.b64encode(secrets.token_bytes(64)).decode()
    return world.keys.setdefault((storage_id.lower(), "key1"), fresh)


def _plain(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without proxies and CAs, which may be this stand-in's."""
    return {n: v for n, v in environment.items() if "proxy" not in n.lower()}
