"""The service's settings: environment variables only, checked once at start."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scoring.errors import StartError

_MOST_WORKERS = 64


@dataclass(frozen=True)
class Settings:
    """Times are in seconds, sizes in bytes. An empty variable counts as unset."""

    model_dir: Path = Path("/app/model")
    key: bytes | None = None
    max_body_bytes: int = 10 * 1024 * 1024
    max_rows: int = 100_000
    request_timeout: float = 30.0
    queue_size: int = 64
    queue_seconds: float = 0.4
    body_timeout: float = 10.0
    grace_seconds: float = 10.0
    workers: int = 1

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read every setting. Raises StartError naming the variable, its value and the mend."""
        return cls(
            model_dir=_model_dir(environ) or cls.model_dir,
            key=_key(environ),
            max_body_bytes=_integer(environ, "MAX_BODY_BYTES", cls.max_body_bytes),
            max_rows=_integer(environ, "MAX_ROWS", cls.max_rows),
            request_timeout=_seconds(environ, "REQUEST_TIMEOUT", cls.request_timeout),
            queue_size=_integer(environ, "QUEUE_SIZE", cls.queue_size),
            queue_seconds=_seconds(environ, "QUEUE_SECONDS", cls.queue_seconds),
            body_timeout=_seconds(environ, "BODY_TIMEOUT", cls.body_timeout),
            grace_seconds=_seconds(environ, "GRACE_SECONDS", cls.grace_seconds, zero=True),
            workers=_integer(environ, "WORKERS", available_cpus(), most=_MOST_WORKERS),
        )


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """The CPUs this process may use: its affinity, and the quota of its control group, rounded down."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cpus = os.cpu_count() or 1
    return max(1, int(min(cpus, _MOST_WORKERS, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """CPUs the control group grants, version 2's or version 1's; infinite where it does not say."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return math.inf
    try:
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except ValueError:  # "max"
        return math.inf


def _model_dir(environ: Mapping[str, str]) -> Path | None:
    """SCORING_MODEL_DIR, else AZUREML_MODEL_DIR (Azure ML's), whose files may lie in `model/`."""
    if own := environ.get("SCORING_MODEL_DIR"):
        return Path(own)
    if azureml := environ.get("AZUREML_MODEL_DIR"):
        nested = Path(azureml, "model")
        return nested if (nested / "model.json").is_file() else Path(azureml)
    return None


def _key(environ: Mapping[str, str]) -> bytes | None:
    key = environ.get("SCORING_KEY", "")
    if not all("!" <= character <= "~" for character in key):
        raise StartError("SCORING_KEY must be printable ASCII without spaces")
    return key.encode() or None


def _integer(environ: Mapping[str, str], name: str, default: int, most: int | None = None) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    whole = text.isascii() and text.isdigit() and len(text) < 16 and int(text) > 0
    if not whole or (most and int(text) > most):
        bound = f" and at most {most}" if most else ""
        raise StartError(
            f"{name} is {text!r}; it must be a whole number above 0{bound}, like {default}"
        )
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float, zero: bool = False) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value <= 86400 or (zero and value == 0)):
        least = "0 or more" if zero else "above 0"
        raise StartError(
            f"{name} is {text!r}; it must be seconds, {least} and at most 86400, like {default:g}"
        )
    return value
