"""Which batches of events wait for the control plane: an index in memory of what lies in the journal's outbox."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from agent.store.journal import BatchRow


class Waiting(NamedTuple):
    """One batch that waits."""

    boot: int
    first: int
    events: int
    size: int
    at_ms: int


class Outbox:
    """Batches in the order in which they were written."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self.events = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, batch: BatchRow) -> None:
        """A batch has been committed."""
        self._waiting.append(Waiting(batch.boot, batch.first, batch.count, len(batch.body), batch.at_ms))
        self.events += batch.count

    def oldest_at_ms(self) -> int | None:
        """When the oldest waiting batch was written, wall clock."""
        return self._waiting[0].at_ms if self._waiting else None

    def next_keys(self, bytes_max: int, batches_max: int) -> list[tuple[int, int]]:
        """(boot, first) of the batches to send next: at least one, if there is any."""
        keys: list[tuple[int, int]] = []
        size = 0
        for batch in self._waiting:
            if keys and (size + batch.size > bytes_max or len(keys) == batches_max):
                break
            keys.append((batch.boot, batch.first))
            size += batch.size
        return keys

    def confirm(self, boot: int, seq: int) -> int:
        """Everything of this boot up to ``seq`` has been accepted; how many events that frees."""
        kept = deque(batch for batch in self._waiting if batch.boot != boot or batch.first + batch.events - 1 > seq)
        freed = self.events - sum(batch.events for batch in kept)
        self._waiting = kept
        self.events -= freed
        return freed
