"""POST /score with good requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scoring.score import Scorer
from scoring.settings import Settings
from tests.scoring import bundles
from tests.scoring.service import Service, request

ROW = {"width": 1, "height in cm": 2.5, 'depth "outer"': -3}


def test_rows_in_column_order(regressor: Service) -> None:
    answer = regressor.score({"data": [[1, 2, 3], [0.5, 0, 1e1]]})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {"result": pytest.approx([24, 52])}


def test_rows_by_name_in_any_order(regressor: Service) -> None:
    backwards = dict(reversed(ROW.items()))
    answer = regressor.score({"data": [ROW, backwards]})
    assert answer.json == {"result": pytest.approx([-4.5, -4.5])}


def test_the_last_of_duplicate_keys_counts(regressor: Service) -> None:
    answer = regressor.score(b'{"data": [[9, 9, 9]], "data": [ [1, 2, 3] ]}')
    assert answer.json == {"result": pytest.approx([24])}
    answer = regressor.score(
        b' { "data" : [ {"width":7,"height in cm":2,"width":1,' b'"depth \\"outer\\"":3} ] } '
    )
    assert answer.json == {"result": pytest.approx([24])}


@pytest.mark.parametrize(
    "media_type",
    ["application/json;charset=utf-8", 'Application/JSON; charset="UTF-8"', "application/json;"],
)
def test_content_types(regressor: Service, media_type: str) -> None:
    answer = regressor.score({"data": [[1, 2, 3]]}, {"Content-Type": media_type})
    assert answer.status == 200


def test_labels_probabilities_and_unknown_or_missing_values(classifier: Service) -> None:
    rows = [[1, "red", "round"], [None, "green", None], [3, "blue", "never seen"]]
    assert classifier.score({"data": rows}).json == {"result": ["stop", "go", "wait"]}
    document = {"data": rows, "probabilities": True}
    answer = classifier.score(document).json
    assert answer["result"] == ["stop", "go", "wait"]
    assert answer["classes"] == ["go", "stop", "wait"]
    for label, shares in zip(answer["result"], answer["probabilities"], strict=True):
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert answer["classes"][shares.index(max(shares))] == label
    by_name = [dict(zip(["size", "colour", "shape"], row, strict=True)) for row in rows]
    assert classifier.score({"data": by_name, "probabilities": True}).json == answer


def test_probabilities_false_is_the_default(classifier: Service, regressor: Service) -> None:
    answer = classifier.score({"probabilities": False, "data": [[1, "red", ""]]})
    assert answer.json == {"result": ["stop"]}
    assert regressor.score({"data": [[1, 2, 3]], "probabilities": False}).status == 200


def test_missing_number_and_overflow_in_float32(
    tmp_path: Path, start: Callable[..., Service]
) -> None:
    service = start(bundles.float32_regressor(tmp_path))
    answer = service.score({"data": [[1, None, 3], [1, 2, 3]]})
    assert answer.json == {"result": pytest.approx([48, 24], rel=1e-5)}
    schemas = service.request("GET", "/swagger.json").json["components"]["schemas"]
    largest = schemas["ArrayRow"]["prefixItems"][2]["maximum"]
    for number, status in ((largest, 200), (-largest, 200), (largest * 1.0000001, 422)):
        assert service.score({"data": [[1, 2, 3], [1, 2, number]]}).status == status
    answer = service.score({"data": [[1, 2, 3], [1, 2, 1e300]]})
    assert (answer.error["row"], answer.error["column"]) == (1, 'depth "outer"')


@pytest.mark.parametrize("labels", [["no", "yes"], [0, 5], [False, True], [1.0, 2.0]])
def test_sklearn_runtime_keeps_the_type_of_labels(tmp_path: Path, labels: list[Any]) -> None:
    scorer = Scorer.load(Settings(model_dir=bundles.sklearn_classifier(tmp_path, labels)))
    answer = scorer.score(b'{"data": [[-1], [1.5]], "probabilities": true}')
    expected = {"result": labels, "probabilities": [[1.0, 0.0], [0.0, 1.0]], "classes": labels}
    assert json.dumps(answer) == json.dumps(expected)


def test_a_prediction_that_is_not_finite_is_null(drills: Service) -> None:
    answer = drills.score({"data": [[0, "infinite", None], [0, "", ""]]})
    assert answer.content == b'{"result":[null,null]}'


def test_sklearn_runtime_gets_a_missing_string_as_missing(drills: Service) -> None:
    answer = drills.score({"data": [[0, "missing", None], [0, "", ""]]})
    assert answer.json == {"result": [1, 0]}


def test_a_large_request(regressor: Service) -> None:
    answer = regressor.score({"data": [[1, 2, index] for index in range(50_000)]})
    assert len(answer.json["result"]) == 50_000
    assert answer.json["result"][-1] == pytest.approx(9 + 5 * 49_999)


def test_health_and_its_head(regressor: Service) -> None:
    answer = regressor.request("GET", "/?probe=1")
    assert answer.json == {"status": "healthy", "model": "toy", "version": 7}
    head = regressor.request("HEAD", "/")
    assert (head.status, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))


def test_one_connection_carries_many_requests(regressor: Service) -> None:
    connection = regressor.connect()
    body = json.dumps({"data": [[1, 2, 3]]}).encode()
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAM"}
    headers = {"Content-Type": "application/json"}
    for extra in ({}, upgrade, {}):  # Java's client offers HTTP/2 with each first request
        assert request(connection, "POST", "/score", body, headers | extra).status == 200
        assert request(connection, "POST", "/score", b"[]", headers | extra).status == 422
        assert request(connection, "GET", "/", None, extra).status == 200
        assert request(connection, "GET", "/none", None, extra).status == 404
    assert connection.sock is not None
    connection.close()
