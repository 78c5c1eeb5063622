"""The service as a plain ASGI application: POST /score, GET / and GET /swagger.json."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from time import perf_counter
from typing import NamedTuple

import orjson

from scoring.asgi import Receive, Scope, Send
from scoring.body import Body, ClientLeft
from scoring.errors import (
    Headers,
    InternalError,
    MethodNotAllowed,
    NotFound,
    RequestError,
    TooSlow,
    Unauthorized,
    UnsupportedMedia,
)
from scoring.log import log_exception, log_request, request_id_of, traceparent_of
from scoring.openapi import describe
from scoring.score import Scorer
from scoring.settings import Settings
from scoring.worker import Worker

_CLIENT_LEFT = 499  # nginx's code for the log; nobody receives it


class _Answer(NamedTuple):
    status: int
    content: bytes
    headers: Headers = ()
    predictions: int = 0


class App:
    """Answers requests with one scorer; every answer is JSON, errors too."""

    def __init__(self, scorer: Scorer, settings: Settings) -> None:
        self._scorer = scorer
        self._settings = settings
        self.worker = Worker(settings.queue_size)
        contract = scorer.contract
        health = {"status": "healthy", "model": contract.name, "version": contract.version}
        description = describe(contract, settings)
        self._pages = {"/": orjson.dumps(health), "/swagger.json": orjson.dumps(description)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and log it."""
        started = perf_counter()
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        request_id = request_id_of(headers)
        body = Body(receive, headers, self._settings.max_body_bytes, self._settings.body_timeout)
        try:
            answer = await self._answer(scope, headers, body)
        except ClientLeft:
            answer = None
        except RequestError as error:
            answer = _error_answer(error, request_id)
        except Exception as error:
            log_exception(request_id, error)
            failed = InternalError("the service failed on this request; its log says why")
            answer = _error_answer(failed, request_id)
        if answer is not None:
            await _send(answer, request_id, body, send)
        log_request(
            request_id,
            answer.status if answer else scope["state"].get("status", _CLIENT_LEFT),
            (perf_counter() - started) * 1000,
            method=scope["method"],
            path=scope["path"],
            traceparent=traceparent_of(headers),
            predictions=answer.predictions if answer else 0,
        )
        if answer is not None and not body.complete:
            if answer.status != TooSlow.status:
                await body.discard()
            await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: Scope, headers: Mapping[bytes, bytes], body: Body) -> _Answer:
        method, path = scope["method"], scope["path"]
        if path == "/score":
            _allow(method, "POST")
            return await self._score(headers, body)
        if (page := self._pages.get(path)) is None:
            raise NotFound("no such path; there are POST /score, GET / and GET /swagger.json")
        _allow(method, "GET, HEAD")
        return _Answer(200, page)

    async def _score(self, headers: Mapping[bytes, bytes], body: Body) -> _Answer:
        self._check_key(headers)
        _check_media_type(headers)
        content = await body.read()
        scored, predictions = await self.worker.run(
            lambda: self._score_in_thread(content), self._settings.request_timeout
        )
        return _Answer(200, scored, predictions=predictions)

    def _score_in_thread(self, content: bytes) -> tuple[bytes, int]:
        answer = self._scorer.score(content)
        return orjson.dumps(answer), len(answer["result"])

    def _check_key(self, headers: Mapping[bytes, bytes]) -> None:
        key = self._settings.key
        if key is None:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), key):
            raise Unauthorized("send the service's key as Authorization: Bearer <key>")


def _allow(method: str, allowed: str) -> None:
    if method not in allowed.split(", "):
        raise MethodNotAllowed(f"only {allowed} here", allowed)


def _check_media_type(headers: Mapping[bytes, bytes]) -> None:
    media_type, *parameters = headers.get(b"content-type", b"").lower().split(b";")
    charset = [each.strip().replace(b'"', b"") for each in parameters if each.strip()]
    if media_type.strip() != b"application/json" or charset not in ([], [b"charset=utf-8"]):
        raise UnsupportedMedia("send Content-Type: application/json (in UTF-8)")
    if headers.get(b"content-encoding", b"identity").lower().strip() != b"identity":
        raise UnsupportedMedia("send the body without Content-Encoding")


def _error_answer(error: RequestError, request_id: str) -> _Answer:
    return _Answer(error.status, orjson.dumps(error.as_dict(request_id)), error.headers)


async def _send(answer: _Answer, request_id: str, body: Body, send: Send) -> None:
    """Send the whole answer; with an unread body the connection is yet to be closed."""
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer.content)).encode()),
        (b"x-request-id", request_id.encode()),
        *answer.headers,
    ]
    if not body.complete:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send(
        {
            "type": "http.response.body",
            "body": answer.content,
            "more_body": not body.complete,
        }
    )
