"""Suspended machines: Trio's queue of runnable tasks, which sets those of a suspended host aside until it goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from contextvars import ContextVar

from trio.lowlevel import Task

OWNER: ContextVar[Hashable | None] = ContextVar("owner", default=None)
"""On which machine a task runs; tasks inherit it from whoever starts them."""


class Queue(deque[Task]):
    """A deque whose ``append`` can hold back."""

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        super().__init__(tasks)
        self._held: dict[Hashable, list[Task]] = {}

    def append(self, task: Task) -> None:
        """Make a task runnable - later, if its machine stands still."""
        if self._held:
            held = self._held.get(task.context.get(OWNER))
            if held is not None:
                held.append(task)
                return
        super().append(task)

    def stop(self, owner: Hashable) -> None:
        """Nothing of this machine runs from now on; not even what was about to."""
        held = self._held.setdefault(owner, [])
        runnable = list(self)
        self.clear()
        for task in runnable:
            if task.context.get(OWNER) == owner:
                held.append(task)
            else:
                super().append(task)

    def go_on(self, owner: Hashable) -> None:
        """It runs again; what time has brought meanwhile happens now."""
        for task in self._held.pop(owner, ()):
            super().append(task)
