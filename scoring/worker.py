"""A thread for the model, so that health checks and other clients never wait behind it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from scoring.errors import QueueFull, TookTooLong

Job = Callable[[], Any]
_Entry = tuple["asyncio.Future[Any]", Job]


class Worker:
    """Runs jobs one after another; at most `queue_size` wait.

    Everything but the thread itself belongs to the event loop, so nothing here needs a lock. A job
    that waits too long is forgotten together with its body; one that runs cannot be stopped.
    """

    def __init__(self, queue_size: int) -> None:
        self._queue_size = queue_size
        self._waiting: deque[_Entry] = deque()
        self._handed: SimpleQueue[_Entry] = SimpleQueue()
        self.busy = False
        # A daemon: a job that never ends must not keep the process from ending.
        threading.Thread(target=self._work, name="model", daemon=True).start()

    async def run(self, job: Job, timeout: float) -> Any:
        """The job's result. Raises QueueFull at once, or TookTooLong after `timeout` seconds."""
        if len(self._waiting) >= self._queue_size:
            raise QueueFull("the service is busy; try again")
        entry = (asyncio.get_running_loop().create_future(), job)
        if self.busy:
            self._waiting.append(entry)
        else:
            self._hand(entry)
        try:
            async with asyncio.timeout(timeout):
                return await entry[0]
        except TimeoutError:
            with suppress(ValueError):
                self._waiting.remove(entry)
            raise TookTooLong(f"no answer within {timeout:g} s") from None

    def _hand(self, entry: _Entry) -> None:
        self.busy = True
        self._handed.put(entry)

    def _work(self) -> None:
        while True:
            future, job = self._handed.get()
            result, error = None, None
            try:
                result = job()
            except BaseException as raised:
                error = raised
            # RuntimeError: the loop is closed, the process is about to end.
            with suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(self._finish, future, result, error)
            del future, job, result, error

    def _finish(
        self, future: asyncio.Future[Any], result: Any, error: BaseException | None
    ) -> None:
        self.busy = False
        if self._waiting:
            self._hand(self._waiting.popleft())
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
