"""Figures as people read them, for the report and the status table."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup

NOTHING = "–"


def number(value: Any, digits: int = 4) -> str:
    """A number with `digits` significant digits and no exponent where it can do without."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}".replace(",", "\u202f")
    text = f"{value:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else text


def signed(value: Any) -> str:
    """A difference, with its sign."""
    text = number(value)
    return f"+{text}" if isinstance(value, int | float) and value > 0 else text.replace("-", "−")


def size(value: Any) -> str:
    """Bytes in decimal units, as image sizes are told."""
    if not isinstance(value, int | float):
        return NOTHING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value} bytes"


def percent(value: Any) -> str:
    """A share of one as percent."""
    if not isinstance(value, int | float):
        return NOTHING
    return f"{100 * value:.3g} %"


def milliseconds(value: Any) -> str:
    """A latency."""
    return f"{number(value, 3)} ms" if isinstance(value, int | float) else NOTHING


def seconds(value: Any) -> str:
    """A duration."""
    if not isinstance(value, int | float):
        return NOTHING
    if value < 100:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60} s"


def moment(value: Any) -> str:
    """A record's time as a person reads it."""
    try:
        return datetime.fromisoformat(str(value)).strftime("%-d %B %Y, %H:%M UTC")
    except ValueError:
        return NOTHING


def short(value: Any) -> str:
    """The beginning of a digest, which is enough to tell it from others."""
    text = str(value or "").removeprefix("sha256:")
    return text[:12] if text else NOTHING


def without_credentials(text: str) -> str:
    """`text` with user and password taken out of the URLs in it."""
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1", text)


def call(parameters: Mapping[str, Any]) -> str:
    """Parameters as `PARAMS=` takes them from a shell."""
    pairs = (
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in parameters.items()
    )
    text = " ".join(shlex.quote(pair) for pair in pairs)
    return shlex.quote(text) if set(text) & set("'\"$`\\") else f'"{text}"'


def marked(text: Any) -> Markup:
    """Text for the page, with what stands between backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


FILTERS: dict[str, Callable[..., str]] = {
    "number": number,
    "signed": signed,
    "size": size,
    "percent": percent,
    "milliseconds": milliseconds,
    "seconds": seconds,
    "call": call,
    "marked": marked,
    "moment": moment,
    "short": short,
}
