"""Errors of the scoring service.

Exception
├── StartError                the service cannot start: one line on stderr, then `exit_code`
└── RequestError              a request is answered with `status` and {"error": {"code", "message"}}
    ├── NotJson               400
    ├── MalformedRequest      400  not HTTP/1.1
    ├── Unauthorized          401
    ├── NotFound              404
    ├── MethodNotAllowed      405
    ├── TooSlow               408
    ├── BodyTooLarge          413
    ├── UnsupportedMedia      415
    ├── InvalidData           422  names row and column where there is one
    ├── HeadersTooLarge       431
    ├── InternalError         500
    ├── QueueFull             503
    └── TookTooLong           504
"""

from __future__ import annotations

from typing import Any, ClassVar

Headers = tuple[tuple[bytes, bytes], ...]


class StartError(Exception):
    """The service cannot start. `exit_code` is 2 for configuration, 1 for a bad model."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RequestError(Exception):
    """A request that is answered with an error; subclasses say which."""

    status: ClassVar[int]
    code: ClassVar[str]
    headers: Headers = ()

    def as_dict(self, request_id: str | None = None) -> dict[str, Any]:
        """The JSON body of the answer."""
        error = {"code": self.code, "message": str(self)}
        if request_id is not None:
            error["request_id"] = request_id
        return {"error": error}


class NotJson(RequestError):
    status, code = 400, "not_json"


class MalformedRequest(RequestError):
    status, code = 400, "malformed_request"


class Unauthorized(RequestError):
    status, code = 401, "unauthorized"
    headers = ((b"www-authenticate", b"Bearer"),)


class NotFound(RequestError):
    status, code = 404, "not_found"


class MethodNotAllowed(RequestError):
    status, code = 405, "method_not_allowed"

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.headers = ((b"allow", allow.encode()),)


class TooSlow(RequestError):
    status, code = 408, "too_slow"


class BodyTooLarge(RequestError):
    status, code = 413, "body_too_large"


class UnsupportedMedia(RequestError):
    status, code = 415, "unsupported_media_type"


class InvalidData(RequestError):
    """The request is JSON but not what the model's contract asks for.

    `row` counts from 0; `column` is a column's name. Both stand in the answer if known.
    """

    status, code = 422, "invalid_data"

    def __init__(self, message: str, row: int | None = None, column: str | None = None) -> None:
        place = ", ".join(
            ([f"row {row} (counting from 0)"] if row is not None else [])
            + ([f'column "{column}"'] if column is not None else [])
        )
        super().__init__(f"{place}: {message}" if place else message)
        self.row = row
        self.column = column

    def as_dict(self, request_id: str | None = None) -> dict[str, Any]:
        """The JSON body of the answer, with `row` and `column` where known."""
        body = super().as_dict(request_id)
        if self.row is not None:
            body["error"]["row"] = self.row
        if self.column is not None:
            body["error"]["column"] = self.column
        return body


class HeadersTooLarge(RequestError):
    status, code = 431, "headers_too_large"


class InternalError(RequestError):
    status, code = 500, "internal_error"


class QueueFull(RequestError):
    status, code = 503, "queue_full"
    headers = ((b"retry-after", b"1"),)


class TookTooLong(RequestError):
    status, code = 504, "took_too_long"
