"""A row of the table of faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.azure.bench import Bench


@dataclass(frozen=True)
class Hit:
    """Verbs that a fault hits alike; `code` 0 means that they ride it out, and `says` tells the wait.

    The verbs in `daily` are tested in every CI run, the others by `make test-full`.
    """

    verbs: str
    code: int
    says: str
    mend: str = ""
    daily: str = ""


@dataclass(frozen=True)
class Fault:
    """One fault: `inject` makes it happen until the bench is mended."""

    name: str
    sentence: str
    inject: Callable[[Bench], None]
    hits: Sequence[Hit]


#: What is told where the same call may succeed later.
AGAIN = "run the same verb again"
