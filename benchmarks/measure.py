"""The rounds: all contestants are up at once, and take turns at each load.

So whatever else the machine does in the meantime meets all of them alike. Servers that wait use no
time of the core they share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants import Contestant
from benchmarks.memory import Memory
from benchmarks.processes import Running, running
from benchmarks.subject import Rows
from benchmarks.wrk import Call, Load, run_wrk
from scripts.errors import SlipwayError

#: Answers before the load, each checked against the model.
_WARM_UP = 5


@dataclass(frozen=True)
class Plan:
    """What is measured: seconds and rounds, row counts, connections, and who sits on which core."""

    rounds: int
    seconds: int
    rows: Sequence[Rows]
    connections: Sequence[int]
    server_core: int
    client_core: int
    folder: Path

    @property
    def steps(self) -> Iterator[tuple[Rows, int]]:
        """Every load: rows and connections."""
        return ((rows, connections) for rows in self.rows for connections in self.connections)


@dataclass(frozen=True)
class Start:
    """A server's start: seconds to the first 200, and its memory after the load."""

    server: str
    round: int
    cold_start: float
    memory: Memory


@dataclass(frozen=True)
class Run:
    """One load on one server."""

    server: str
    round: int
    rows: int
    connections: int
    load: Load
    #: Of the server, for a request; unlike the rate, hardly touched by what else the machine does.
    processor_us: float


def measure(
    contestants: Sequence[Contestant], plan: Plan, progress: Callable[[str], None]
) -> tuple[list[Start], list[Run]]:
    """All rounds. `progress` hears of every load before it begins.

    Raises SlipwayError if a server does not start, or if any answer is wrong or missing.
    """
    starts: list[Start] = []
    runs: list[Run] = []
    for number in range(1, plan.rounds + 1):
        # Back and forth, so that nobody is always the first after a pause.
        order = list(contestants) if number % 2 else list(reversed(contestants))
        with ExitStack() as stack:
            servers = []
            for contestant in order:
                progress(f"round {number}: starting {contestant.name}")
                log = plan.folder / "logs" / f"{contestant.name.replace(' ', '-')}.log"
                servers.append(stack.enter_context(running(contestant, plan.server_core, log)))
            for rows, connections in plan.steps:
                for server in servers:
                    progress(f"round {number}: {server.contestant.name}, {len(rows)} rows")
                    runs.append(_run(server, number, rows, connections, plan))
            starts += [
                Start(each.contestant.name, number, each.cold_start, each.memory())
                for each in servers
            ]
    return starts, runs


def _run(server: Running, number: int, rows: Rows, connections: int, plan: Plan) -> Run:
    """Check answers against the model, then let wrk hold all under load against the last of them."""
    contestant, folder = server.contestant, plan.folder / "calls"
    folder.mkdir(parents=True, exist_ok=True)
    request, expected = folder / "request.json", folder / "expected.json"
    request.write_bytes(contestant.request(rows))
    for _ in range(_WARM_UP):
        expected.write_bytes(server.answer(rows))
    url = f"http://127.0.0.1:{server.port}{contestant.score}"
    call = Call(url, contestant.headers, request, expected, contestant.part)
    before = server.processor_seconds()
    load = run_wrk(call, connections, plan.seconds, plan.client_core)
    if load.wrong or load.broken or not load.requests:
        raise SlipwayError(
            f"{contestant.name}, {len(rows)} rows on {connections} connections: of "
            f"{load.requests} answers {load.wrong} were wrong and {load.broken} were missing",
            "what answers wrongly under load is not measured; its log lies in build/bench/logs",
        )
    used = (server.processor_seconds() - before) * 1e6 / load.requests
    return Run(contestant.name, number, len(rows), connections, load, used)
