"""The service's OpenAPI 3.1 description, made from the model's contract."""

from __future__ import annotations

from typing import Any

from scoring import errors
from scoring.contract import Column, Contract
from scoring.settings import Settings

_FLOAT32_MAX = (2 - 2**-23) * 2.0**127

_SCORE_ERRORS: tuple[tuple[type[errors.RequestError], str], ...] = (
    (errors.NotJson, "The body is not JSON in UTF-8, or the request is not HTTP."),
    (errors.Unauthorized, "The key is missing or wrong."),
    (errors.TooSlow, "The body did not arrive in time."),
    (errors.BodyTooLarge, "The body is larger than {max_body_bytes} bytes, as sent or unpacked."),
    (
        errors.UnsupportedMedia,
        "The body is not application/json in UTF-8, as it is or with Content-Encoding: gzip.",
    ),
    (
        errors.InvalidData,
        "The JSON is not what the model takes: its shape, a value's type, a row's width, more "
        "than {max_rows} rows, or probabilities of a model that has none.",
    ),
    (errors.HeadersTooLarge, "The headers are too large."),
    (errors.InternalError, "The service failed."),
    (errors.QueueFull, "Too many requests wait; try again after Retry-After seconds."),
    (errors.TookTooLong, "No answer within {request_timeout:g} seconds."),
)


def describe(contract: Contract, settings: Settings) -> dict[str, Any]:
    """The description as a JSON object."""
    secured = settings.key is not None
    components: dict[str, Any] = {"schemas": _schemas(contract, settings)}
    if secured:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": contract.name,
            "version": str(contract.version),
            "description": f"Predicts {contract.target} with a {contract.kind}.",
        },
        "paths": {
            "/score": {"post": _score(contract, settings, secured)},
            "/": {"get": _page("health", "Whether the service is healthy.", "Health")},
            "/swagger.json": {"get": _page("describe", "This description.", None)},
            "/metrics": {"get": _metrics(secured)},
        },
        "components": components,
    }


def _score(contract: Contract, settings: Settings, secured: bool) -> dict[str, Any]:
    request, result = contract.sample.request, {"result": contract.sample.result}
    limits = {
        "max_body_bytes": settings.max_body_bytes,
        "max_rows": settings.max_rows,
        "request_timeout": settings.request_timeout,
    }
    responses: dict[str, Any] = {
        "200": {
            "description": "One prediction for each row, in order.",
            "headers": _headers(),
            "content": {"application/json": {"schema": _ref("ScoreAnswer"), "example": result}},
        }
    }
    for error, text in _SCORE_ERRORS:
        if error is errors.Unauthorized and not secured:
            continue
        responses[str(error.status)] = _error(error, text.format(**limits))
    operation: dict[str, Any] = {
        "operationId": "score",
        "summary": f"Predict {contract.target} for rows of data.",
        "description": "The body may be compressed, with Content-Encoding: gzip.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("ScoreRequest"), "example": request}},
        },
        "responses": responses,
    }
    if secured:
        operation["security"] = [{"key": []}]
    return operation


def _schemas(contract: Contract, settings: Settings) -> dict[str, Any]:
    columns = contract.columns
    rows = {"minItems": 1, "maxItems": settings.max_rows}
    array_row = {
        "type": "array",
        "prefixItems": [_cell(column, contract) | {"title": column.name} for column in columns],
        "minItems": len(columns),
        "maxItems": len(columns),
    }
    object_row = {
        "type": "object",
        "properties": {column.name: _cell(column, contract) for column in columns},
        "required": contract.names,
        "additionalProperties": False,
    }
    request: dict[str, Any] = {
        "type": "object",
        "properties": {
            "data": {
                "oneOf": [
                    {"type": "array", "items": _ref("ArrayRow"), **rows},
                    {"type": "array", "items": _ref("ObjectRow"), **rows},
                ]
            },
            "probabilities": {"type": "boolean", "default": False},
        },
        "required": ["data"],
        "additionalProperties": False,
    }
    answer: dict[str, Any] = {
        "type": "object",
        "properties": {"result": {"type": "array", "items": _prediction(contract)}},
        "required": ["result"],
    }
    if contract.probabilities:
        share = {"type": ["number", "null"]}
        answer["properties"] |= {
            "probabilities": {"type": "array", "items": {"type": "array", "items": share}},
            "classes": {"const": contract.classes},
        }
    else:
        request["properties"]["probabilities"] = {"const": False}
    return {
        "ArrayRow": array_row,
        "ObjectRow": object_row,
        "ScoreRequest": request,
        "ScoreAnswer": answer,
        "Health": _HEALTH,
        "Error": _ERROR,
    }


_HEALTH = {
    "type": "object",
    "properties": {
        "status": {"const": "healthy"},
        "model": {"type": "string"},
        "version": {"type": ["integer", "string"]},
    },
    "required": ["status", "model", "version"],
}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "request_id": {"type": "string"},
                "row": {"type": "integer", "description": "Counted from 0."},
                "column": {"type": "string"},
            },
            "required": ["code", "message"],
        }
    },
    "required": ["error"],
}


def _cell(column: Column, contract: Contract) -> dict[str, Any]:
    cell: dict[str, Any] = {"type": [column.type, "null"] if column.nullable else column.type}
    if column.type == "number" and contract.dtype == "float32":
        cell |= {"minimum": -_FLOAT32_MAX, "maximum": _FLOAT32_MAX}
    return cell


def _prediction(contract: Contract) -> dict[str, Any]:
    if contract.kind == "classifier":
        return {"enum": contract.classes}
    return {
        "type": ["number", "null"],
        "description": "null where the prediction is not a finite number.",
    }


def _page(operation: str, summary: str, schema: str | None) -> dict[str, Any]:
    content = {"schema": _ref(schema) if schema else {"type": "object"}}
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {
            "200": {
                "description": summary,
                "headers": _headers(),
                "content": {"application/json": content},
            }
        },
    }


def _metrics(secured: bool) -> dict[str, Any]:
    page = _page("metrics", "Figures for Prometheus.", None)
    page["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    if secured:
        page["responses"]["401"] = _error(errors.Unauthorized, "The key is missing or wrong.")
        page["security"] = [{"key": []}]
    return page


def _error(error: type[errors.RequestError], description: str) -> dict[str, Any]:
    example = {"error": {"code": error.code, "message": description}}
    return {
        "description": description,
        "content": {"application/json": {"schema": _ref("Error"), "example": example}},
    }


def _headers() -> dict[str, Any]:
    return {
        "X-Request-Id": {
            "description": "The caller's X-Ms-Request-Id or X-Request-Id, else a new one.",
            "schema": {"type": "string"},
        }
    }


def _ref(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}
