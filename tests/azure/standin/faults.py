"""What the stand-in is told to do wrong.

A `Fault` stands in the way of the next requests it matches: an answer of its own (429 with
Retry-After, 503, an expired token), a delay, or a connection that breaks. A *trouble* is a state of
the world by name, that the module it concerns asks for: an image that cannot be pulled, a region
without capacity, a run that fails.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.azure.standin.messages import Answer, Refused, Request


@dataclass
class Fault:
    """Hits requests whose `METHOD https://host/path?query` holds the pattern, `times` in number."""

    pattern: str
    answer: Answer | Refused | None = None
    times: int = 1
    delay: float = 0.0
    breaks: bool = False
    hits: int = field(default=0, init=False)

    def hit(self, request: Request) -> bool:
        """Whether this request is one of those; counts it."""
        text = f"{request.method} {request.url}?{request.raw_query}"
        if self.hits >= self.times or not re.search(self.pattern, text, re.IGNORECASE):
            return False
        self.hits += 1
        return True


class Faults:
    """The faults to come and the troubles there are."""

    def __init__(self) -> None:
        self._queue: list[Fault] = []
        #: Names of troubles that modules may ask for; each declares its own with a sentence.
        self.known: dict[str, str] = {}
        self._troubles: dict[str, int] = {}

    def add(self, fault: Fault) -> Fault:
        self._queue.append(fault)
        return fault

    def take(self, request: Request) -> Fault | None:
        """The first fault that hits the request."""
        return next((fault for fault in self._queue if fault.hit(request)), None)

    def declare(self, name: str, sentence: str) -> None:
        """Say that a module asks for this trouble, and what it means."""
        self.known[name] = sentence

    def trouble(self, name: str, times: int = 1_000_000) -> None:
        """Let the trouble come up the next `times` it is asked for."""
        if name not in self.known:
            raise KeyError(f"no module knows the trouble {name!r}; known: {sorted(self.known)}")
        self._troubles[name] = times

    def has(self, name: str) -> bool:
        """Whether the trouble comes up now; uses up one of its times."""
        if name not in self.known:
            raise KeyError(f"{name!r} was not declared")
        left = self._troubles.get(name, 0)
        if left:
            self._troubles[name] = left - 1
        return left > 0

    def clear(self) -> None:
        """No faults and no troubles any more."""
        self._queue.clear()
        self._troubles.clear()
