"""A receiver of telemetry: OTLP over HTTP, and Application Insights' ingestion."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KEY = "12345678-90ab-cdef-1234-567890abcdef"
Record = dict[str, Any]


class Collector:
    """Listens on 127.0.0.1 and keeps what it is sent, as plain dictionaries.

    `spans` and `logs` came by OTLP, with `resource` and `attributes` flattened to values;
    `requests` and `traces` by Application Insights, as the tables of those names hold them. With
    `refuses` that accepts the connection, but not the first item of each batch.
    """

    def __init__(self, refuses: bool = False) -> None:
        self.spans: list[Record] = []
        self.logs: list[Record] = []
        self.requests: list[Record] = []
        self.traces: list[Record] = []
        self.others: list[Record] = []
        self.headers: dict[str, str] = {}
        self._refuses = refuses
        self._took = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def connection_string(self) -> str:
        return f"InstrumentationKey={KEY};IngestionEndpoint={self.url}/"

    def wait_for(self, arrived: Callable[[], bool]) -> None:
        with self._took:
            assert self._took.wait_for(arrived, 20)

    def reference_query(self) -> list[Record]:
        """The query of the reference on the tables that Application Insights would hold.

        let Traceinfo=traces
        | extend d=parse_json(tostring(customDimensions.Content))
        | project workspace=customDimensions.["Workspace Name"], ... id=tostring(d.RequestId), ...;
        requests
        | project timestamp, id, success, resultCode, duration
        | join kind=fullouter Traceinfo on id
        | project-away id1
        """
        infos = {}
        for trace in self.traces:
            dimensions = trace["customDimensions"]
            d = json.loads(dimensions["Content"])
            assert d["RequestId"] not in infos
            infos[d["RequestId"]] = {
                "workspace": dimensions["Workspace Name"],
                "service": dimensions["Service Name"],
                "NumberOfPredictions": str(d["NumberOfPredictions"]),
                "TraceParent": d["TraceParent"],
            }
        requests = {
            row["id"]: {
                "success": row["success"],
                "resultCode": row["responseCode"],
                "duration": row["duration"],
            }
            for row in self.requests
        }
        return [
            {"id": key, **requests.get(key, {}), **infos.get(key, {})}
            for key in dict.fromkeys([*requests, *infos])
        ]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.headers.update(self.headers.items())
                answer = collector._take(self.path, body)
                self.send_response(206 if collector._refuses else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler

    def _take(self, path: str, body: bytes) -> bytes:
        with self._took:
            answer = b""
            if path == "/v1/traces":
                self._take_spans(body)
            elif path == "/v1/logs":
                self._take_logs(body)
            elif path == "/v2.1/track":
                answer = self._track(body)
            else:
                self.others.append({"path": path})
            self._took.notify_all()
            return answer

    def _take_spans(self, body: bytes) -> None:
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            for span in (each for scope in part.scope_spans for each in scope.spans):
                self.spans.append(
                    {
                        "resource": _values(part.resource.attributes),
                        "trace_id": span.trace_id.hex(),
                        "span_id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "name": span.name,
                        "kind": span.kind,
                        "status": span.status.code,
                        "start": span.start_time_unix_nano,
                        "end": span.end_time_unix_nano,
                        "trace_state": span.trace_state,
                        "attributes": _values(span.attributes),
                    }
                )

    def _take_logs(self, body: bytes) -> None:
        for part in ExportLogsServiceRequest.FromString(body).resource_logs:
            for log in (each for scope in part.scope_logs for each in scope.log_records):
                self.logs.append(
                    {
                        "trace_id": log.trace_id.hex(),
                        "span_id": log.span_id.hex(),
                        "body": log.body.string_value,
                        "attributes": _values(log.attributes),
                    }
                )

    def _track(self, body: bytes) -> bytes:
        text = body.decode()
        items = json.loads(text) if text.startswith("[") else map(json.loads, text.splitlines())
        count = 0
        for item in items:
            count += 1
            assert item["iKey"] == KEY
            kind, data = item["data"]["baseType"], item["data"]["baseData"]
            row = data | {
                "timestamp": item["time"],
                "customDimensions": data.get("properties") or {},
                "operation_Id": item["tags"]["ai.operation.id"],
                "operation_ParentId": item["tags"].get("ai.operation.parentId"),
                "cloud_RoleName": item["tags"]["ai.cloud.role"],
                "application_Version": item["tags"]["ai.application.ver"],
                "itemCount": round(100 / item.get("sampleRate", 100)),
            }
            tables = {"RequestData": self.requests, "MessageData": self.traces}
            tables.get(kind, self.others).append(row)
        errors = [{"index": 0, "statusCode": 400, "message": "not wanted"}] * self._refuses
        accepted = count - len(errors)
        answer = {"itemsReceived": count, "itemsAccepted": accepted, "errors": errors}
        return json.dumps(answer).encode()


def _values(attributes: Any) -> Record:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in attributes
    }
