"""The blobs of ACR Tasks: sources that are uploaded, and logs that grow while a run is at work.

An account of the service's own, reached by addresses that carry their right with them. Only what
clients do with such addresses is here: put a blob (at once or in blocks), ask for its properties, read.
Source: Storage services REST reference (Put Blob, Put Block, Put Block List, Get Blob, Get Blob Properties).
"""

from __future__ import annotations

import hmac
import re
import secrets
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tests.azure.standin.messages import Answer, Refused, Request
from tests.azure.standin.world import World

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

ACCOUNT = "acrtasksstandin.blob.core.windows.net"
SOURCE = "Storage services REST reference"
CONTAINER = "tasks"


class BlobRefused(Refused):
    """An error of blob storage, whose code is in a header too."""

    def answer(self) -> Answer:
        text = f"<Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>"
        headers = {"x-ms-error-code": self.code, "Content-Type": "application/xml"}
        return Answer(self.status, text, headers)


@dataclass
class Blobs:
    """The blobs by path, as files; `rights` are the signatures given out and what they allow."""

    folder: Path
    rights: dict[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    blocks: dict[tuple[str, str], bytes] = field(default_factory=dict, repr=False)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def file(self, path: str) -> Path:
        return self.folder / path

    def address(self, path: str, permission: str) -> str:
        """An address of a blob that lets its holder read ("r") or write ("cw") it for an hour."""
        signature = secrets.token_urlsafe(32)
        self.rights[signature] = (path, permission)
        end = datetime.now(UTC) + timedelta(hours=1)
        query = {
            "sv": "2023-11-03",
            "sr": "b",
            "sp": permission,
            "se": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "sig": signature,
        }
        return f"https://{ACCOUNT}/{CONTAINER}/{path}?{urlencode(query)}"

    def append(self, path: str, text: bytes) -> None:
        """Let a log grow."""
        with self.lock:
            self.file(path).parent.mkdir(parents=True, exist_ok=True)
            with self.file(path).open("ab") as stream:
                stream.write(text)

    def complete(self, path: str, outcome: str) -> None:
        """Mark a log as ended. Clients look for this mark (azure-cli acr/_stream_utils.py)."""
        self.metadata[path] = {"Complete": outcome}


def blobs(world: World) -> Blobs:
    found = world.rooms.get("build blobs")
    if not isinstance(found, Blobs):
        found = world.rooms["build blobs"] = Blobs(world.folder / "builds")
    return found


def _check(kept: Blobs, request: Request, path: str, permission: str) -> None:
    signature = request.query.get("sig", "")
    for right, (allowed, permissions) in kept.rights.items():
        if hmac.compare_digest(right, signature):
            if allowed == path and permission in permissions:
                return
            break
    raise BlobRefused(
        403,
        "AuthenticationFailed",
        "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
        "correctly including the signature.",
    )


def _range(request: Request, size: int) -> tuple[int, int] | None:
    """First and last byte asked for, None for all; Refused (416) beyond the end."""
    text = request.headers.get("x-ms-range") or request.headers.get("range")
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", text or "")
    if found is None:
        return None
    first = int(found[1])
    if first >= size:
        raise BlobRefused(416, "InvalidRange", "The range specified is invalid.")
    return first, min(int(found[2] or size - 1), size - 1)


def _written(request: Request, kept: Blobs, path: str) -> Answer:
    action = request.query.get("comp", "")
    target = kept.file(path)
    headers = {"ETag": f'"{secrets.token_hex(8)}"', "Last-Modified": _date(datetime.now(UTC))}
    if action == "block":
        kept.blocks[path, request.query["blockid"]] = request.body
    elif action == "blocklist":
        names = [each.text or "" for each in ElementTree.fromstring(request.body)]
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.write_bytes(b"".join(kept.blocks.pop((path, name)) for name in names))
        except KeyError:
            raise BlobRefused(
                400, "InvalidBlockList", "The specified block list is invalid."
            ) from None
    elif action == "" and request.headers.get("x-ms-blob-type") == "BlockBlob":
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(request.body)
    else:
        raise BlobRefused(400, "UnsupportedHeader", f"Nothing here does comp={action!r}.")
    return Answer(201, None, headers)


def _date(at: datetime) -> str:
    return at.strftime("%a, %d %b %Y %H:%M:%S GMT")


def _properties(kept: Blobs, path: str) -> Mapping[str, str]:
    changed = datetime.fromtimestamp(kept.file(path).stat().st_mtime, UTC)
    metadata = {f"x-ms-meta-{name}": value for name, value in kept.metadata.get(path, {}).items()}
    return {
        "ETag": '"0x8D0"',
        "Last-Modified": _date(changed),
        "x-ms-blob-type": "BlockBlob",
        "Content-Type": "application/octet-stream",
        **metadata,
    }


def add(parts: Parts) -> None:
    """The account's routes."""
    routes = parts.routes
    where = f"/{CONTAINER}/{{path...}}"

    @routes.add(ACCOUNT, "PUT", where, source=SOURCE, slow=True)
    def put(world: World, request: Request, path: str) -> Answer:
        kept = blobs(world)
        _check(kept, request, path, "w")
        return _written(request, kept, path)

    @routes.add(ACCOUNT, "GET HEAD", where, source=SOURCE, slow=True)
    def get(world: World, request: Request, path: str) -> Answer:
        kept = blobs(world)
        _check(kept, request, path, "r")
        # Its end is looked for before its content: who reads both misses nothing.
        if not kept.file(path).is_file():
            raise BlobRefused(404, "BlobNotFound", "The specified blob does not exist.")
        headers = dict(_properties(kept, path))
        content = kept.file(path).read_bytes()
        if request.method == "HEAD":
            return Answer(200, None, {**headers, "Content-Length": str(len(content))})
        wanted = _range(request, len(content))
        if wanted is None:
            return Answer(200, content, headers)
        first, last = wanted
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return Answer(206, content[first : last + 1], headers)
