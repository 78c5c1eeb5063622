"""A thread for the model, so that health checks and other clients never wait behind a long call."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from scoring.errors import QueueFull

#: Weight of the newest call in the running mean of how long one takes.
_NEWEST = 0.2


class Job:
    """Work for the thread; `done(result, error)` is called in the event loop, unless it is given up."""

    __slots__ = ("done", "work")

    def __init__(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        self.work = work
        self.done: Callable[[Any, BaseException | None], None] | None = done


class ModelThread:
    """Runs jobs one after another.

    At most `queue_size` wait, and none is taken that would wait longer than `queue_seconds` (or than
    two calls of a model that is itself slower). Everything but the thread belongs to the event loop,
    so nothing here needs a lock. A job given up while it waits is forgotten together with its body;
    one that runs cannot be stopped.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, queue_size: int, queue_seconds: float
    ) -> None:
        self._loop = loop
        self._queue_size = queue_size
        self._queue_seconds = queue_seconds
        self._waiting: deque[Job] = deque()
        self._handed: SimpleQueue[Job] = SimpleQueue()
        self._mean_seconds = 0.0
        self._began = 0.0
        self.busy = False
        # A daemon: a job that never ends must not keep the process from ending.
        threading.Thread(target=self._work, name="model", daemon=True).start()

    def submit(self, job: Job) -> None:
        """Run `job` when its turn comes. Raises QueueFull at once where it would wait too long."""
        if not self.busy:
            self._hand(job)
            return
        waiting = len(self._waiting)
        # A call that takes longer than others did says nothing of when it will end.
        running = max(self._mean_seconds, self._loop.time() - self._began)
        wait = running + waiting * self._mean_seconds
        if waiting >= self._queue_size or wait > max(self._queue_seconds, 2 * self._mean_seconds):
            raise QueueFull("the service is busy; try again")
        self._waiting.append(job)

    def give_up(self, job: Job) -> None:
        """Nobody waits for this job any more."""
        job.done = None
        with suppress(ValueError):
            self._waiting.remove(job)

    def _hand(self, job: Job) -> None:
        self.busy = True
        self._began = self._loop.time()
        self._handed.put(job)

    def _work(self) -> None:
        while True:
            job = self._handed.get()
            result: Any = None
            error: BaseException | None = None
            try:
                result = job.work()
            except BaseException as raised:  # a model that calls sys.exit() must not end the thread
                error = raised
            # RuntimeError: the loop is closed, the process is about to end.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._finish, job, result, error)
            del job, result, error

    def _finish(self, job: Job, result: Any, error: BaseException | None) -> None:
        seconds = self._loop.time() - self._began
        self._mean_seconds += _NEWEST * (seconds - self._mean_seconds)
        self.busy = False
        if self._waiting:
            self._hand(self._waiting.popleft())
        if job.done is not None:
            job.done(result, error)
