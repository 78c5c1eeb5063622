"""The error inside what az prints.

az prints Azure's errors in half a dozen forms: `(Code) message`, JSON with inner errors (whose messages
may be JSON again), `Code - message`, a sentence of its own. The innermost error is the one that tells.
"""

from __future__ import annotations

import json
import re
from typing import Any

#: How az begins what it did not foresee.
UNFORESEEN = "The command failed with an unexpected error. Here is the traceback:"


def innermost(text: str) -> tuple[str, str]:
    """Code and message of the error inside all others; the code is "" where there is none.

    >>> innermost("ERROR: (Outer) See inner.\\nInner Errors: \\n" '{"code": "Quota", "message": "Full."}')
    ('Quota', 'Full.')
    """
    text = "\n".join(
        line for line in text.splitlines() if not line.startswith(("WARNING", "/usr", "  warn"))
    )
    # What az did not foresee it tells with its traceback.
    text = text.partition("Traceback (most recent call last)")[0].replace(UNFORESEEN, "")
    text = re.sub(r"^(\s*ERROR:)+", "", text).strip()
    if reached := re.search(r"HTTPS?ConnectionPool\(host='([^']+)'", text):
        why = re.findall(r"(?:[A-Z]\w+\(['\"]|Caused by \w+: )([^'\"()]+)", text)
        return "", f"cannot reach {reached[1]}: {why[-1] if why else 'the connection broke'}"
    if broken := re.match(r"\('[^']*', \w+\('([^']+)'", text):
        return "", f"cannot reach Azure: {broken[1]}"
    found = [inner for value in _objects(text) if (inner := _deepest(value))]
    if found and not found[-1][1]:
        # Key Vault's inner error is a code only, and its message is what stands before.
        said = re.sub(r"^\(\w+\) ", "", text.partition("\nCode:")[0])
        return found[-1][0], " ".join(said.split())
    if found:
        return found[-1]
    return _plain(text)


def _objects(text: str) -> list[Any]:
    """The JSON objects in the text."""
    decoder, at, objects = json.JSONDecoder(), 0, []
    while (at := text.find("{", at)) != -1:
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:
            at += 1
            continue
        objects.append(value)
    return [value for value in objects if isinstance(value, dict)]


def _deepest(value: dict[str, Any]) -> tuple[str, str] | None:
    """Code and message of an ARM error's first innermost detail."""
    error = value.get("error", value)
    if not isinstance(error, dict) or not isinstance(error.get("code"), str):
        return None
    for detail in error.get("details") or ():
        if isinstance(detail, dict) and (inner := _deepest(detail)):
            return inner
    message = " ".join(str(error.get("message") or "").split())
    for value in _objects(str(error.get("message") or "")):
        if inner := _deepest(value):
            return inner
    return error["code"], message


def _plain(text: str) -> tuple[str, str]:
    """Code and message where az formatted them itself."""
    inner = re.findall(r"^\s*\(([A-Za-z][\w.]+)\) (.+)$", text, re.MULTILINE)
    inner += re.findall(r"Exception Details:\s*\(([A-Za-z][\w.]+)\) (.+)$", text, re.MULTILINE)
    if inner:
        return inner[-1][0], " ".join(inner[-1][1].split())
    preflight = re.findall(r"^([A-Z][A-Za-z]{5,}) - (.+)$", text, re.MULTILINE)
    if preflight:
        return preflight[-1][0], " ".join(preflight[-1][1].split())
    signed = re.search(r"(AADSTS\d+): ([^\n]+)", text)
    if signed:
        return signed[1], re.sub(r" (Trace ID|Correlation ID|Timestamp):.*", "", signed[2])
    coded = re.match(r"([A-Z][A-Za-z]{5,}): (.+)", text, re.DOTALL)
    if coded:
        return coded[1], " ".join(coded[2].split())
    return "", " ".join(text.split())[:600] or "no message"
