"""Which batches of events wait for the control plane: an index in memory of what lies in the journal's outbox."""

from __future__ import annotations

from collections import deque
from itertools import chain
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
    """Batches in the order in which they were written: by boot, and dense within each."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[Waiting]] = {}
        self.events = 0

    def __len__(self) -> int:
        return sum(len(of_boot) for of_boot in self._waiting.values())

    def put(self, batch: BatchRow) -> None:
        """A batch has been committed."""
        waiting = Waiting(batch.boot, batch.first, batch.count, len(batch.body), batch.at_ms)
        self._waiting.setdefault(batch.boot, deque()).append(waiting)
        self.events += batch.count

    def oldest_at_ms(self) -> int | None:
        """When the oldest waiting batch was written, wall clock."""
        return next((of_boot[0].at_ms for of_boot in self._waiting.values()), None)

    def first_of(self, boot: int) -> int | None:
        """Sequence number of the first event of this boot that waits."""
        return self._waiting[boot][0].first if boot in self._waiting else None

    def next_keys(self, bytes_max: int, batches_max: int) -> list[tuple[int, int]]:
        """(boot, first) of the batches to send next: at least one, if there is any."""
        keys: list[tuple[int, int]] = []
        size = 0
        for batch in chain.from_iterable(self._waiting.values()):
            if keys and (size + batch.size > bytes_max or len(keys) == batches_max):
                break
            keys.append((batch.boot, batch.first))
            size += batch.size
        return keys

    def confirm(self, boot: int, seq: int) -> int:
        """Everything of this boot up to ``seq`` has been accepted; how many events that frees."""
        of_boot, freed = self._waiting.get(boot), 0
        while of_boot and of_boot[0].first + of_boot[0].events - 1 <= seq:
            freed += of_boot.popleft().events
        if of_boot is not None and not of_boot:
            del self._waiting[boot]
        self.events -= freed
        return freed
