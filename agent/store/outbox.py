"""Which batches of events wait for the control plane, and which are kept although it has confirmed them.

An index in memory of what lies in the journal's outbox. What was confirmed is not final: a control plane whose database
is restored to an older state has forgotten some of it, and asks for it again by a mark that is lower than one before.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import NamedTuple

from agent.store.journal import BatchRow, Contents
from protocol.uplink_messages import MARKS_MAX, HighWater

KEPT_MS = 26 * 3_600_000
"""A day, the usual time between two backups that people make, and two hours to put one back."""

KEPT_BYTES_MAX = 16 * 1024 * 1024
"""A quarter of the smallest disk that our charts give an agent; some 70,000 events. A busy host keeps its last minutes,
which is what is lost with a replica that lags; a quiet one keeps the whole day."""


class Waiting(NamedTuple):
    """One batch."""

    boot: int
    first: int
    events: int
    size: int
    at_ms: int

    @property
    def last(self) -> int:
        """Sequence number of its last event."""
        return self.first + self.events - 1


class Mark(NamedTuple):
    """Up to where the events of a boot are confirmed: as last heard, and the furthest that was ever heard."""

    seq: int
    told: int


class Outbox:
    """Batches in the order in which they were written: by boot, and dense within each."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[Waiting]] = {}
        self._kept: dict[int, deque[Waiting]] = {}
        self._marks: dict[int, Mark] = {}
        self._kept_bytes = 0
        self.events = 0

    def __len__(self) -> int:
        return sum(len(of_boot) for of_boot in self._waiting.values())

    def fill(self, contents: Contents) -> None:
        """Everything that is on disk, at the start."""
        self._marks = {boot: Mark(*mark) for boot, mark in contents.marks.items()}
        for batch in contents.outbox:
            self.put(batch)
        for kept in contents.kept:
            self._keep(Waiting(kept.boot, kept.first, kept.count, kept.size, kept.at_ms))

    def put(self, batch: BatchRow) -> None:
        """A batch has been committed."""
        waiting = Waiting(batch.boot, batch.first, batch.count, len(batch.body), batch.at_ms)
        self._waiting.setdefault(batch.boot, deque()).append(waiting)
        self.events += batch.count

    def oldest_at_ms(self) -> int | None:
        """When the oldest waiting batch was written, wall clock."""
        return min((of_boot[0].at_ms for of_boot in self._waiting.values()), default=None)

    def next_keys(self, bytes_max: int, batches_max: int, after: int = 0) -> list[tuple[int, int]]:
        """(boot, first) of the batches to send next: at least one, if there is any.

        Args:
            after: pass over so many first.
        """
        keys: list[tuple[int, int]] = []
        size = 0
        for at, batch in enumerate(chain.from_iterable(self._waiting[boot] for boot in sorted(self._waiting))):
            if at < after:
                continue
            if keys and (size + batch.size > bytes_max or len(keys) == batches_max):
                break
            keys.append((batch.boot, batch.first))
            size += batch.size
        return keys

    def confirm(self, boot: int, seq: int) -> int:
        """The control plane says that it has everything of this boot up to ``seq``, and nothing beyond.

        With a lower mark than before, what is still here of the rest waits again.

        Returns: how many events wait no longer.
        """
        mark = self._marks.get(boot, Mark(0, 0))
        if seq > 0 or boot in self._marks:
            self._marks[boot] = Mark(seq, max(mark.told, seq))
        if seq < mark.seq:
            self._wait_again(boot, seq)
            return 0
        of_boot, freed = self._waiting.get(boot), 0
        while of_boot and of_boot[0].last <= seq:
            batch = of_boot.popleft()
            freed += batch.events
            self._keep(batch)
        if of_boot is not None and not of_boot:
            del self._waiting[boot]
        self.events -= freed
        return freed

    def marks(self) -> tuple[HighWater, ...]:
        """Up to where events are confirmed, as last heard; of the newest boots."""
        return tuple(HighWater(boot, self._marks[boot].seq) for boot in sorted(self._marks)[-MARKS_MAX:])

    def lost(self) -> tuple[HighWater, ...]:
        """What was confirmed, is wanted again, and is no longer here: up to these marks nothing can be sent."""
        gone = {}
        for boot, mark in self._marks.items():
            top = self._waiting[boot][0].first - 1 if boot in self._waiting else mark.told
            if top > mark.seq:
                gone[boot] = top
        return tuple(HighWater(boot, gone[boot]) for boot in sorted(gone)[-MARKS_MAX:])

    def outdated(self, now_ms: int) -> list[tuple[int, int]]:
        """(boot, first) of kept batches that are too old, or too many; wall clock. They stay until :meth:`forget`."""
        too_much, keys = self._kept_bytes - KEPT_BYTES_MAX, []
        for batch in chain.from_iterable(self._kept.values()):
            if batch.at_ms >= now_ms - KEPT_MS and too_much <= 0:
                break
            keys.append((batch.boot, batch.first))
            too_much -= batch.size
        return keys

    def forget(self, keys: list[tuple[int, int]]) -> None:
        """These kept batches, the oldest of all, are no longer on disk."""
        for boot, _ in keys:
            self._kept_bytes -= self._kept[boot].popleft().size
            if not self._kept[boot]:
                del self._kept[boot]

    def forget_kept(self) -> None:
        """None is on disk any longer."""
        self._kept.clear()
        self._kept_bytes = 0

    def _keep(self, batch: Waiting) -> None:
        self._kept.setdefault(batch.boot, deque()).append(batch)
        self._kept_bytes += batch.size

    def _wait_again(self, boot: int, seq: int) -> None:
        kept = self._kept.get(boot, deque())
        waiting = self._waiting.get(boot, deque())
        while kept and kept[-1].last > seq:
            batch = kept.pop()
            waiting.appendleft(batch)
            self._kept_bytes -= batch.size
            self.events += batch.events
        if boot in self._kept and not kept:
            del self._kept[boot]
        if waiting:
            self._waiting[boot] = waiting
