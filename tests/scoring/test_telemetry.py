"""Traces and log records, as an OTLP collector and Application Insights receive them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from socket import create_server
from typing import Any

import pytest

from scoring.tracing import MOST_PER_SECOND
from tests.scoring.collector import KEY, Collector, Record

ROOT = Path(__file__).parents[2]
PARENT = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
SAMPLED = f"00-{PARENT}-{CALLER}-01"
UNSAMPLED = f"00-{PARENT}-{CALLER}-00"
STARTED = time.time_ns()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def request(**also: Any) -> Record:
    return {
        "traceparent": None,
        "tracestate": None,
        "method": "POST",
        "path": "/score",
        "status": 200,
        "started_ns": STARTED,
        "ended_ns": STARTED + 2_500_000,
        "predictions": 1,
        "request_id": "abc",
        **also,
    }


def many(count: int) -> list[Record]:
    """Requests at 50 a second, fewer than the most that are recorded."""
    starts = (STARTED + number * 20_000_000 for number in range(count))
    return [request(started_ns=start, ended_ns=start + 1_000_000) for start in starts]


def run(
    requests: list[Record], timeout: float = 60, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Record requests in a process of their own, which ends once they are delivered."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-B", "-m", "tests.scoring.recorder"],
        input=json.dumps(requests),
        env=kept | settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def record(requests: list[Record], **settings: str) -> Record:
    """What the process said it did, after making sure that it said nothing else."""
    ended = run(requests, **settings)
    assert (ended.returncode, ended.stderr) == (0, "")
    (line,) = ended.stdout.splitlines()
    seen: Record = json.loads(line)
    return seen


def test_off_means_not_even_imported() -> None:
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "", "APPLICATIONINSIGHTS_CONNECTION_STRING": " "}
    for settings in ({}, nowhere):
        seen = record([request()], **settings, OTEL_TRACES_SAMPLER_ARG="nonsense")
        assert seen["packages"] == []
        assert seen["connect"] == []


def test_the_kusto_query_of_the_reference(collector: Collector) -> None:
    record(
        [
            request(traceparent=SAMPLED, predictions=10),
            request(predictions=3),
            request(status=422, predictions=0),
            request(status=504, predictions=0),
        ],
        APPLICATIONINSIGHTS_CONNECTION_STRING=collector.connection_string,
        WORKSPACE_NAME="mlops-AML-WS",
        SERVICE_NAME="diabetes",
    )
    rows = collector.reference_query()
    assert all(row["workspace"] == "mlops-AML-WS" for row in rows)
    assert all(row["service"] == "diabetes" for row in rows)
    # The exporter rounds to milliseconds, in which many requests take none.
    assert {row["duration"] for row in rows} == {"0.00:00:00.003"}
    found = [(row["resultCode"], row["success"], row["NumberOfPredictions"]) for row in rows]
    assert sorted(found) == [
        ("200", True, "10"),
        ("200", True, "3"),
        ("422", False, "0"),
        ("504", False, "0"),
    ]
    by_caller = {row["TraceParent"]: row for row in rows}
    assert by_caller[SAMPLED]["NumberOfPredictions"] == "10"
    assert all(len(row["id"]) == 16 and int(row["id"], 16) for row in rows)
    assert {row["application_Version"] for row in collector.requests} == {"7"}
    assert {row["cloud_RoleName"] for row in collector.requests} == {"diabetes"}
    continued = next(row for row in collector.requests if row["operation_Id"] == PARENT)
    assert continued["operation_ParentId"] == CALLER
    assert continued["name"] == "POST /score"
    assert continued["customDimensions"] == {
        "scoring.request_id": "abc",
        "scoring.predictions": "10",
        "scoring.duration_ms": "2.5",
    }
    assert collector.others == []


def test_spans_follow_the_semantic_conventions(collector: Collector) -> None:
    record(
        [
            request(traceparent=SAMPLED, tracestate="vendor=1"),
            request(path="/nothing/here", method="BREW", traceparent=SAMPLED, status=404),
            request(status=500),
        ],
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url + "/",
        OTEL_SERVICE_NAME="named",
    )
    by_status = {span["attributes"]["http.response.status_code"]: span for span in collector.spans}
    score, other, failed = (by_status[status] for status in (200, 404, 500))
    assert score["trace_id"] == PARENT
    assert score["parent"] == CALLER
    assert score["trace_state"] == "vendor=1"
    assert (score["name"], score["kind"], score["status"]) == ("POST /score", 2, 0)
    assert (score["start"], score["end"]) == (STARTED, STARTED + 2_500_000)
    assert score["resource"]["service.name"] == "named"
    assert score["resource"]["service.version"] == "7"
    assert score["attributes"] == {
        "http.request.method": "POST",
        "http.route": "/score",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/score",
        "scoring.request_id": "abc",
        "scoring.predictions": 1,
    }
    assert other["name"] == "HTTP"
    assert other["attributes"]["http.request.method"] == "_OTHER"
    assert "http.route" not in other["attributes"]
    assert other["status"] == 0
    assert failed["status"] == 2
    assert failed["attributes"]["error.type"] == "500"
    assert failed["parent"] == ""


def test_headers_for_the_collector(collector: Collector) -> None:
    headers = f"api-key={KEY}, authorization=Bearer a.b=="
    record(
        [request()],
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS=headers,
    )
    assert len(collector.spans) == 1
    assert collector.headers["api-key"] == KEY
    assert collector.headers["authorization"] == "Bearer a.b=="


def test_log_records_by_otlp(collector: Collector) -> None:
    record(
        [request(traceparent=SAMPLED, predictions=2), request(path="/", traceparent=SAMPLED)],
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        WORKSPACE_NAME="ws",
    )
    (log,) = collector.logs
    (span,) = [span for span in collector.spans if span["name"] == "POST /score"]
    assert (log["trace_id"], log["span_id"]) == (PARENT, span["span_id"])
    assert log["attributes"]["Workspace Name"] == "ws"
    assert log["attributes"]["Service Name"] == "toy"
    assert json.loads(log["attributes"]["Content"]) == {
        "RequestId": span["span_id"],
        "TraceParent": SAMPLED,
        "NumberOfPredictions": 2,
    }


def test_both_at_once(collector: Collector) -> None:
    record(
        [request(), request()],
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        APPLICATIONINSIGHTS_CONNECTION_STRING=collector.connection_string,
    )
    ids = {span["span_id"] for span in collector.spans}
    assert len(collector.spans) == len(collector.logs) == 2
    assert {row["id"] for row in collector.requests} == ids
    assert len(collector.requests) == len(collector.traces) == 2


def test_the_caller_decides_then_the_ratio(collector: Collector) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    requests = [request(), request(traceparent=UNSAMPLED), request(traceparent=SAMPLED)]
    record(requests, **endpoint, OTEL_TRACES_SAMPLER_ARG="0")
    assert [span["parent"] for span in collector.spans] == [CALLER]
    record(requests, **endpoint)
    assert sorted(span["parent"] for span in collector.spans) == ["", CALLER, CALLER]


def test_a_share_of_requests(collector: Collector) -> None:
    record(
        many(400),
        APPLICATIONINSIGHTS_CONNECTION_STRING=collector.connection_string,
        OTEL_TRACES_SAMPLER_ARG="0.5",
    )
    assert 120 < len(collector.requests) < 280
    assert len(collector.traces) == len(collector.requests)
    # How many requests each row stands for, so that sum(itemCount) estimates them all.
    assert {row["itemCount"] for row in collector.requests} == {2}


def test_no_more_than_the_service_can_bear(collector: Collector) -> None:
    later = STARTED + 10**10
    requests = [request()] * 1_000 + [request(started_ns=later, ended_ns=later)]
    ended = run(requests, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    warning, _ = (json.loads(line) for line in ended.stdout.splitlines())
    assert "OTEL_TRACES_SAMPLER_ARG" in warning["message"]
    assert len(collector.spans) == MOST_PER_SECOND + 1


def test_health_checks_and_scrapes_are_not_traced(collector: Collector) -> None:
    paths = ("/", "/metrics", "/swagger.json", "/robots.txt")
    record(
        [*(request(path=path, method="GET") for path in paths), request()],
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
    )
    assert [span["name"] for span in collector.spans] == ["POST /score"]


def test_nothing_goes_anywhere_else(collector: Collector) -> None:
    seen = record(
        [request()] * 3,
        APPLICATIONINSIGHTS_CONNECTION_STRING=collector.connection_string,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        APPINSIGHTS_INSTRUMENTATIONKEY="00000000-0000-0000-0000-000000000000",
    )
    port = int(collector.url.rsplit(":", 1)[1])
    assert {tuple(address) for address in seen["connect"]} == {("127.0.0.1", port)}
    assert set(seen["resolve"]) == {"127.0.0.1"}
    assert set(seen["write"]) <= {os.devnull}
    assert collector.others == []


@pytest.mark.parametrize("kind", ["otlp", "azure"])
def test_an_endpoint_that_is_not_there(kind: str) -> None:
    with create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    ended = run(
        many(5_000),
        SHUTDOWN_SECONDS="3",
        **settings_for(kind, url),
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    warning, *_ = lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["telemetry_warning", "seen"]
    assert "\n" not in warning["message"]
    assert KEY not in ended.stdout


@pytest.mark.parametrize("kind", ["otlp", "azure"])
def test_an_endpoint_that_never_answers(kind: str) -> None:
    with create_server(("127.0.0.1", 0), backlog=100) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        requests = many(5_000)
        ended = run(requests, timeout=25, SHUTDOWN_SECONDS="1", **settings_for(kind, url))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout.splitlines()[-1])["event"] == "seen"


def settings_for(kind: str, url: str) -> dict[str, str]:
    if kind == "otlp":
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
    key = f"InstrumentationKey={KEY};IngestionEndpoint={url}/"
    return {"APPLICATIONINSIGHTS_CONNECTION_STRING": key}


def test_what_the_endpoint_refuses_is_said_without_the_key() -> None:
    collector = Collector(refuses=True)
    settings = settings_for("azure", collector.url)
    ended = run([request()], **settings)
    collector.stop()
    assert (ended.returncode, ended.stderr) == (0, "")
    warning = json.loads(ended.stdout.splitlines()[0])
    assert warning["event"] == "telemetry_warning"
    assert "not wanted" in warning["message"]
    assert KEY not in ended.stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:port"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:{KEY}@collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://collector:4318/?key={KEY}"),
        ("APPLICATIONINSIGHTS_CONNECTION_STRING", KEY),
        ("APPLICATIONINSIGHTS_CONNECTION_STRING", f"InstrumentationKey={KEY}"),
        ("APPLICATIONINSIGHTS_CONNECTION_STRING", f"InstrumentationKey={KEY}x;{{at}}"),
        ("APPLICATIONINSIGHTS_CONNECTION_STRING", f"InstrumentationKey={KEY[:-1]};{{at}}"),
        (
            "APPLICATIONINSIGHTS_CONNECTION_STRING",
            f"InstrumentationKey={KEY};IngestionEndpoint=somewhere",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", KEY),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"a=b,api key={KEY}"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f'api-key="{KEY}"'),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "half"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
    ],
)
def test_a_bad_setting(name: str, value: str) -> None:
    value = value.replace("{at}", "IngestionEndpoint=https://example.com/")
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"} | {name: value}
    ended = run([request()], **settings)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {name}")
    assert ended.stderr.count("\n") == 1
    assert KEY[:-1] not in ended.stderr


@pytest.mark.parametrize("form", ["{0};", "{0};LiveEndpoint=https://example.com/=;", " {1} "])
def test_forms_of_a_connection_string(collector: Collector, form: str) -> None:
    plain = collector.connection_string
    written = form.format(plain, plain.replace(KEY, KEY.upper()))
    record([request()], APPLICATIONINSIGHTS_CONNECTION_STRING=written)
    assert len(collector.requests) == 1
