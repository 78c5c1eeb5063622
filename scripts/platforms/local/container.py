"""One container of the service, and what its labels and state say of the deployment it is.

Two marks in the engine say how far a deployment came, so that one cut short by a crash is
finished, or cleared away, by the next call. A container that is still to be proven has no restart
policy; once proven it has `unless-stopped`. Of those that run with it the newest serves.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

from scripts.platforms.starting import SERVICE_SECRETS, SERVICE_SETTINGS

PROVEN = "unless-stopped"
_ACTIVE = ("running", "restarting", "paused")


def number(container: Any) -> int:
    """The deployment's number."""
    return int(container.labels["slipway.deployment"])


def colour(container: Any) -> str:
    """The name by which the front finds it on the network."""
    return str(container.labels["slipway.colour"])


def is_proven(container: Any) -> bool:
    """Whether it once answered the sample right."""
    return bool(container.attrs["HostConfig"]["RestartPolicy"]["Name"] == PROVEN)


def is_active(container: Any) -> bool:
    """Whether it runs, or the engine keeps trying."""
    return container.status in _ACTIVE


def exit_code(container: Any) -> int | None:
    """The code it ended with; None while it runs."""
    container.reload()
    return None if container.status == "running" else int(container.attrs["State"]["ExitCode"])


def address(container: Any, network: str) -> str:
    """Its IP address on the network."""
    return str(container.attrs["NetworkSettings"]["Networks"][network]["IPAddress"])


def environment(container: Any) -> dict[str, str]:
    """The settings and the secrets it was started with."""
    pairs = (each.partition("=") for each in container.attrs["Config"]["Env"])
    known = {*SERVICE_SETTINGS, *SERVICE_SECRETS}
    return {name: value for name, _, value in pairs if name in known}


def packaged_model(container: Any) -> bytes:
    """The model.json in the container's image, which outlives its bundle."""
    stream, _ = container.get_archive("/app/model/model.json")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        member = archive.extractfile(archive.getmembers()[0])
        return member.read() if member else b""


def log_lines(container: Any, *, follow: bool = False, tail: int | str = "all") -> Iterator[str]:
    """The lines of its log, oldest first; of the last `tail` of them."""
    rest = b""
    for chunk in container.logs(stream=True, follow=follow, tail=tail):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")


def label(value: int | None) -> str:
    """A number as a label; empty for none."""
    return "" if value is None else str(value)


def unlabel(text: str) -> int | None:
    """A label as the number it was made from."""
    return int(text) if text else None
