"""The service's settings: environment variables only, checked once at start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scoring.errors import StartError


@dataclass(frozen=True)
class Settings:
    """Times are in seconds, sizes in bytes. An empty variable counts as unset."""

    model_dir: Path = Path("/app/model")
    key: bytes | None = None
    max_body_bytes: int = 10 * 1024 * 1024
    max_rows: int = 100_000
    request_timeout: float = 30.0
    queue_size: int = 64
    body_timeout: float = 10.0
    grace_seconds: float = 10.0

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
            body_timeout=_seconds(environ, "BODY_TIMEOUT", cls.body_timeout),
            grace_seconds=_seconds(environ, "GRACE_SECONDS", cls.grace_seconds, zero=True),
        )


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


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text) > 0):
        raise StartError(f"{name} is {text!r}; it must be a whole number above 0, like {default}")
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
