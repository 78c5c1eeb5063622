"""The load itself: locust's users, in a process of their own.

gevent patches every socket of the process that imports it, so `load` runs this as
`python -m scripts.swarm` and never imports it. The plan comes as one JSON object on standard
input (the key is in it, so it stands in no process list); what happens goes out as JSON lines:
one for every second, and a last one holding `"done": true` with every figure.

Plan: url, headers, certificate, users, seconds, tolerance, html, requests: [{name, weight, data, result}]
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gevent
import gevent.ssl
import locust.stats
from locust import FastHttpUser, TaskSet, constant
from locust.env import Environment
from locust.html import get_html_report

from scripts.answers import difference
from scripts.latencies import Latencies
from scripts.records import write_atomic
from scripts.route import proxy_for, trust

#: Seconds a user may take to end the request it is in when the time is up.
LAST_ANSWERS = 5.0


class Figures:
    """What the users saw: over the whole test, and second by second."""

    def __init__(self) -> None:
        self.all = Latencies()
        self.second = Latencies()
        self.failures = 0
        self.failed_this_second = 0
        self.reasons: dict[str, int] = {}
        self.history: list[dict[str, float]] = []

    def add(self, response_time: float, exception: BaseException | None) -> None:
        """Count one answer; `response_time` in ms."""
        self.all.add(response_time)
        self.second.add(response_time)
        if exception is not None:
            self.failures += 1
            self.failed_this_second += 1
            reason = str(exception) or type(exception).__name__
            if reason in self.reasons or len(self.reasons) < 20:
                self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def turn(self, at: float, seconds: float, users: int) -> dict[str, float]:
        """Close an interval that lasted `seconds` and return its line of history."""
        line = {
            "at": round(at, 1),
            "users": users,
            "requests_per_second": round(self.second.count / seconds, 1),
            "p50_ms": self.second.percentile(50),
            "p95_ms": self.second.percentile(95),
            "failures": self.failed_this_second,
        }
        self.history.append(line)
        self.second, self.failed_this_second = Latencies(), 0
        return line


def wrong_answer(text: str | None, expected: list[Any], tolerance: float) -> str | None:
    """Why an answer of status 200 is not the one recorded at packaging, or None if it is."""
    try:
        result = json.loads(text or "")["result"]
    except (ValueError, KeyError, TypeError):
        return "the answer is not JSON with a result"
    if not isinstance(result, list) or len(result) != len(expected):
        return f"the answer should hold {len(expected)} result(s)"
    if difference(result, expected) > tolerance:
        return "the answer differs from the recorded prediction"
    return None


def user_class(plan: Mapping[str, Any]) -> type[FastHttpUser]:
    """A user that sends the next request as soon as it has the answer to the last."""
    headers = {"Content-Type": "application/json", **plan["headers"]}

    def asking(request: Mapping[str, Any]) -> Callable[[FastHttpUser], None]:
        body = json.dumps({"data": request["data"]})

        def ask(user: FastHttpUser) -> None:
            with user.client.post(
                "/score", name=request["name"], data=body, headers=headers, catch_response=True
            ) as response:
                if response.status_code == 200:
                    wrong = wrong_answer(response.text, request["result"], plan["tolerance"])
                    if wrong:
                        response.failure(wrong)
                elif response.status_code:
                    response.failure(f"status {response.status_code}")

        ask.__name__ = request["name"]
        return ask

    # locust draws from this list, so what stands in it twice is asked twice as often.
    weighted: list[TaskSet | Callable[..., Any]] = [
        ask for request in plan["requests"] for ask in [asking(request)] * request["weight"]
    ]

    proxy = proxy_for(plan["url"])
    # One for all users: making one takes longer than an answer.
    trusted = trust(gevent.ssl.create_default_context, plan["certificate"])

    class Caller(FastHttpUser):
        host = plan["url"]
        tasks = weighted
        wait_time = constant(0)
        insecure = False
        connection_timeout = 10.0
        network_timeout = 30.0
        proxy_host = proxy.host if proxy else None
        proxy_port = proxy.port if proxy else None

        ssl_context_factory = staticmethod(lambda **_: trusted)

        def __init__(self, environment: Environment) -> None:
            super().__init__(environment)
            if proxy and proxy.user:
                # locust passes on the proxy's place but not its credentials.
                credentials = {"proxy_user": proxy.user, "proxy_password": proxy.password}
                self.client.client.clientpool.client_args.update(credentials)

    return Caller


def emit(line: Mapping[str, Any]) -> None:
    """Tell `load`; without anyone to listen the load ends at once."""
    try:
        print(json.dumps(line), flush=True)
    except OSError:
        os._exit(1)


def swarm(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Put the load on, telling of every second, and return the figures."""
    environment = Environment(user_classes=[user_class(plan)], stop_timeout=LAST_ANSWERS)
    runner = environment.create_local_runner()
    figures = Figures()

    def count(response_time: float, exception: BaseException | None, **_: Any) -> None:
        figures.add(response_time, exception)

    environment.events.request.add_listener(count)  # type: ignore[no-untyped-call]
    locust.stats.HISTORY_STATS_INTERVAL_SEC = 1
    gevent.spawn(locust.stats.stats_history, runner)
    began = last = time.monotonic()
    runner.start(plan["users"], spawn_rate=plan["users"])
    while (left := began + plan["seconds"] - time.monotonic()) > 0.05:
        gevent.sleep(min(1.0, left))
        now = time.monotonic()
        emit(figures.turn(now - began, now - last, runner.user_count))
        last = now
    runner.stop()
    spent = time.monotonic() - began
    page: str = get_html_report(environment, show_download_link=False)  # type: ignore[no-untyped-call]
    write_atomic(Path(plan["html"]), page.encode())
    return {
        "done": True,
        "seconds": round(spent, 3),
        "requests": figures.all.count,
        "failures": figures.failures,
        "requests_per_second": round(figures.all.count / spent, 1),
        **{f"p{part}_ms": figures.all.percentile(part) for part in (50, 95, 99)},
        "max_ms": figures.all.percentile(100),
        "reasons": figures.reasons,
        "history": figures.history,
        "histogram": figures.all.histogram(),
        "raised": [error["msg"] for error in runner.exceptions.values()],
    }


def main() -> int:
    """Read the plan and carry it out."""
    logging.getLogger().addHandler(logging.NullHandler())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    emit(swarm(json.load(sys.stdin)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
