"""A request as routes see it, and what they answer."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """`body` is sent as JSON unless it is bytes or text; None is an empty body."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> tuple[bytes, str | None]:
        """The body's bytes and their content type, None where there is none."""
        if self.body is None:
            return b"", None
        if isinstance(self.body, bytes):
            return self.body, "application/octet-stream"
        if isinstance(self.body, str):
            return self.body.encode(), "text/plain; charset=utf-8"
        return json.dumps(self.body).encode(), "application/json; charset=utf-8"


class Refused(Exception):
    """What Azure refuses: status, code and message in ARM's error body.

    The SDK's own error type cannot be shown without `details`, so they are always there.
    Source: https://github.com/Azure/azure-resource-manager-rpc (common API details, error response).
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: list[Json] | None = None,
        more: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message
        self.details, self.more = details or [], more or {}
        self.headers = dict(headers or {})

    def answer(self) -> Answer:
        error = {"code": self.code, "message": self.message, "details": self.details, **self.more}
        return Answer(self.status, {"error": error}, self.headers)


@dataclass(frozen=True)
class Request:
    """One request; header names are in lower case, `query` holds the first value of each name."""

    method: str
    host: str
    path: str
    raw_query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, value in parse_qsl(self.raw_query, keep_blank_values=True):
            found.setdefault(name, value)
        return found

    @property
    def api_version(self) -> str:
        return self.query.get("api-version", "")

    @property
    def url(self) -> str:
        return f"https://{self.host}{self.path}"

    def json(self) -> Any:
        """The body; Refused (400 InvalidRequestContent) if it is no JSON."""
        text = self.body.decode("utf-8-sig")
        try:
            return json.loads(text) if text else None
        except ValueError as error:
            raise Refused(
                400,
                "InvalidRequestContent",
                f"The request content was invalid and could not be deserialized: '{error}'.",
            ) from None

    def mapping(self) -> Json:
        """The body, which must be a JSON object."""
        body = self.json()
        if not isinstance(body, dict):
            raise Refused(400, "InvalidRequestContent", "The request content is not an object.")
        return body

    @property
    def claims(self) -> Json:
        """The claims of the bearer token, {} if there is none or it is none of ours."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", token):
            return {}
        part = token.split(".")[1]
        try:
            claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        except ValueError:
            return {}
        return claims if isinstance(claims, dict) else {}
