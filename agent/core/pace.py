"""How often an agent reports what was used: at once after a silence, then ever more seldom while it goes on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

PAUSE_MS_MIN = 250
PAUSE_MS_MAX = 20_000
SILENCE_MS = 60_000
"""After so long without a word, news is said at once again."""


@dataclass(slots=True)
class Pace:
    """When mere news - what was used; it returns nothing to anybody - is to be said. An exchange that is needed for
    something else takes it along.

    Attributes:
        said_at_ms: when something was last said. since_ms: since when news waits; ``None`` while there is none.
        pause_ms: how long it may wait for more.
    """

    said_at_ms: int = -SILENCE_MS
    since_ms: int | None = None
    pause_ms: int = PAUSE_MS_MIN

    def due_at_ms(self, now_ms: int) -> int:
        """There is news: when it is to be said. Every pause is twice the one before, so that a busy host does not send
        a message a call."""
        if self.since_ms is None:
            self.since_ms = now_ms
            silent = now_ms - self.said_at_ms >= SILENCE_MS
            self.pause_ms = PAUSE_MS_MIN if silent else min(2 * self.pause_ms, PAUSE_MS_MAX)
        return self.since_ms + self.pause_ms

    def said(self, now_ms: int) -> None:
        """Everything is being said now."""
        self.said_at_ms, self.since_ms = now_ms, None
