"""Virtual time: a heap of what happens when, in whole milliseconds; at the same moment, in the order of asking."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Clock:
    """The only source of time in a comparison. It also serves as the clock that an agent's dispatch reads."""

    def __init__(self) -> None:
        self.now_ms = 0
        self._serial = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    def after(self, delay_ms: int, act: Callable[..., None], *arguments: Any) -> None:
        """Call ``act`` so much later, and after everything already due at that moment."""
        self._serial += 1
        heappush(self._heap, (self.now_ms + delay_ms, self._serial, act, arguments))

    def run(self, until: Callable[[], bool]) -> None:
        """Let time pass until ``until`` says so, or nothing is left to happen."""
        heap = self._heap
        while heap and not until():
            self.now_ms, _, act, arguments = heappop(heap)
            act(*arguments)

    def monotonic_ms(self) -> int:
        """As an agent's clock."""
        return self.now_ms

    def wall_ms(self) -> int:
        """As an agent's clock; the epoch does not matter here."""
        return self.now_ms
