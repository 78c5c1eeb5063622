"""What a process and all it started hold in memory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import psutil

_MB = 1e6


@dataclass(frozen=True)
class Memory:
    """In MB (10^6 bytes): `pss` counts a page that several share once, `rss` once for each."""

    pss_mb: float
    rss_mb: float


def tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants; empty if it has ended."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


def memory_of(pid: int) -> Memory:
    """The memory of the process and its descendants, now."""
    pss = rss = 0
    for process in tree(pid):
        with contextlib.suppress(psutil.Error):
            info = process.memory_full_info()
            pss, rss = pss + info.pss, rss + info.rss
    return Memory(pss / _MB, rss / _MB)
