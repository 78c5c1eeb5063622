"""Templates as az posts them: JSON with comments, text over several lines, one name without quotes.

Source: azure-cli resource/custom.py, JsonCTemplatePolicy, which puts the file as it is after
`template:` into the request.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.azure.standin.messages import Refused

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|\btemplate\s*:', re.DOTALL)


def _plain(match: re.Match[str]) -> str:
    text = match[0]
    if text.startswith("/"):
        return " "
    if text.startswith("template"):
        return '"template":'
    return text.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")


def load(body: bytes) -> Any:
    """The request's content; Refused (400) if it is not even that."""
    try:
        return json.loads(_TOKEN.sub(_plain, body.decode("utf-8-sig")))
    except ValueError as error:
        raise Refused(
            400,
            "InvalidRequestContent",
            f"The request content was invalid and could not be deserialized: '{error}'.",
        ) from None
