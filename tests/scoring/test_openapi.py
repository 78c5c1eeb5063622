"""The OpenAPI description says what the service does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.scoring.service import Service

ERRORS = {"400", "408", "413", "415", "422", "431", "500", "503", "504"}


def description(service: Service) -> dict[str, Any]:
    answer = service.request("GET", "/swagger.json")
    assert answer.status == 200
    found: dict[str, Any] = answer.json
    return found


def validator(document: dict[str, Any], name: str) -> jsonschema.Draft202012Validator:
    schema = document | {"$ref": f"#/components/schemas/{name}"}
    return jsonschema.Draft202012Validator(schema)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "$ref")
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_document_holds_together(regressor: Service, classifier: Service) -> None:
    for service in (regressor, classifier):
        document = description(service)
        assert document["openapi"] == "3.1.0"
        assert document["info"] == {
            "title": "toy",
            "version": "7",
            "description": document["info"]["description"],
        }
        assert set(document["paths"]) == {"/", "/score", "/swagger.json", "/metrics"}
        responses = document["paths"]["/score"]["post"]["responses"]
        assert set(responses) == ERRORS | {"200"}
        schemas = document["components"]["schemas"]
        for schema in schemas.values():
            jsonschema.Draft202012Validator.check_schema(schema)
        for reference in references(document):
            assert reference.rpartition("/")[2] in schemas


def test_the_examples_are_true(regressor: Service, classifier: Service) -> None:
    for service in (regressor, classifier):
        document = description(service)
        operation = document["paths"]["/score"]["post"]
        request = operation["requestBody"]["content"]["application/json"]["example"]
        validator(document, "ScoreRequest").validate(request)
        example = operation["responses"]["200"]["content"]["application/json"]["example"]
        answer = service.score(request).json
        validator(document, "ScoreAnswer").validate(example)
        validator(document, "ScoreAnswer").validate(answer)
        if service is regressor:
            assert answer["result"] == pytest.approx(example["result"])
        else:
            assert answer == example


def test_health_errors_and_probabilities_match_their_schemas(classifier: Service) -> None:
    document = description(classifier)
    validator(document, "Health").validate(classifier.request("GET", "/").json)
    for body in (b"{", b"{}", b'{"data": [[1, 2, 3]]}'):
        validator(document, "Error").validate(classifier.score(body).json)
    request = {"data": [[None, "red", "round"]], "probabilities": True}
    validator(document, "ScoreRequest").validate(request)
    validator(document, "ScoreAnswer").validate(classifier.score(request).json)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"data": []},
        {"data": [[]]},
        {"data": [[1, "red"]]},
        {"data": [[1, "red", "x", 2]]},
        {"data": [["1", "red", "x"]]},
        {"data": [[1, None, "x"]]},
        {"data": [{"size": 1, "colour": "red"}]},
        {"data": [{"size": 1, "colour": "red", "shape": "x", "y": 1}]},
        {"data": [[1, "red", "x"], {"size": 1, "colour": "red", "shape": "x"}]},
        {"data": [[1, "red", "x"]], "other": 1},
        {"data": [[1, "red", "x"]], "probabilities": 1},
    ],
)
def test_schema_and_service_refuse_the_same(classifier: Service, request_: Any) -> None:
    assert not validator(description(classifier), "ScoreRequest").is_valid(request_)
    assert classifier.score(json.dumps(request_).encode()).status == 422


def test_limits_and_key_stand_in_it(regressor_dir: Path, start: Callable[..., Service]) -> None:
    service = start(regressor_dir, {"MAX_ROWS": "12", "SCORING_KEY": "k"})
    document = description(service)
    data = document["components"]["schemas"]["ScoreRequest"]["properties"]["data"]
    assert [form["maxItems"] for form in data["oneOf"]] == [12, 12]
    for operation in (document["paths"]["/score"]["post"], document["paths"]["/metrics"]["get"]):
        assert "401" in operation["responses"]
        assert operation["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"] == {
        "key": {"type": "http", "scheme": "bearer"}
    }
