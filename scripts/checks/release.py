"""What a release is made of: data, model room, registry, service, certificates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scripts.checks.finding import Finding, ok, problem
from scripts.contract import load_model_room
from scripts.platforms import connect
from scripts.platforms.base import serving
from scripts.platforms.local.tracking import database, database_revision
from scripts.settings import Settings


def certificates(root: Path, settings: Settings) -> Iterator[Finding]:
    """The company's own CA, if one is named."""
    if settings.EXTRA_CA is None:
        return
    path = root / settings.EXTRA_CA
    mend = "set EXTRA_CA to a file of PEM certificates that you may read"
    try:
        text = path.read_text("utf-8", "replace")
    except OSError as error:
        yield problem("certificates", f"EXTRA_CA={settings.EXTRA_CA}: {error.strerror}", mend)
        return
    if not text.strip():  # the dev container's, where no company's CA is needed
        return
    count = text.count("-----BEGIN CERTIFICATE-----")
    if count:
        yield ok("certificates", f"{count} in {settings.EXTRA_CA}")
    else:
        yield problem("certificates", f"EXTRA_CA={settings.EXTRA_CA} holds none", mend)


def data_file(root: Path, settings: Settings) -> Iterator[Finding]:
    """The file that `data` reads; whether its rows are right is for `make data`."""
    if settings.DATA_PATH is None:
        yield problem("data", "DATA_PATH is not set", "set DATA_PATH in .env")
        return
    path = root / settings.DATA_PATH
    mend = "set DATA_PATH in .env to a CSV or Parquet file"
    if not path.is_file():
        yield problem("data", f"DATA_PATH={settings.DATA_PATH}: there is no such file", mend)
        return
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        yield problem("data", f"DATA_PATH={settings.DATA_PATH}: {error.strerror}", mend)
        return
    if empty:
        yield problem("data", f"DATA_PATH={settings.DATA_PATH} is empty", mend)
    else:
        yield ok("data", f"{settings.DATA_PATH}, {path.stat().st_size:,} bytes")


def model_room(root: Path, settings: Settings) -> Iterator[Finding]:
    """`model/`: loads, and declares what the stages need."""
    room = load_model_room()
    yield ok(
        "model", f"{room.target} from {len(room.columns)} columns, gate on {room.primary_metric}"
    )


def registry(root: Path, settings: Settings) -> Iterator[Finding]:
    """MLflow's database."""
    revision = database_revision(database(root))
    if revision is None:
        yield ok("registry", "none yet; `make train` makes it")
    else:
        yield ok("registry", f"{database(root).relative_to(root)} can be read (schema {revision})")


def service(root: Path, settings: Settings) -> Iterator[Finding]:
    """Whether what is deployed is healthy."""
    deployed = serving(connect(root, settings).service)
    if deployed is None:
        yield ok("service", "nothing is deployed")
    elif deployed.healthy:
        yield ok("service", f"version {deployed.version} is healthy at {deployed.url}")
    else:
        yield Finding(
            "warning",
            "service",
            f"version {deployed.version} is not healthy; `make logs` shows why",
        )
