"""One thread for everything that touches the journal's file, one piece of work at a time, never abandoned half-way.

A thread of its own, because handing work to Trio's pool costs three times as much, and a settle waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol, TypeVar

import outcome
import trio

T = TypeVar("T")


class Executor(Protocol):
    """Does what touches the journal's file, in the order in which it was asked for."""

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises."""

    def close(self) -> None:
        """Let it end once it has done what it was asked."""


class OneThread:
    """Runs work in the order in which it was asked for. It ends with the process, or by :meth:`close`."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises. A cancellation takes effect only after it has ended."""
        token, task = trio.lowlevel.current_trio_token(), trio.lowlevel.current_task()

        def do() -> None:
            token.run_sync_soon(trio.lowlevel.reschedule, task, outcome.capture(work))

        self._work.put(do)
        result: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return result

    def close(self) -> None:
        """Let it end once it has done what it was asked."""
        self._work.put(None)
        self._thread.join()
