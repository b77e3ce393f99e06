"""What memory knows and the disk does not yet: gathered here between two commits, written as one group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from agent.core.leases import Lease
from agent.core.reservations import Ended, Reservation
from protocol.entitlements import Entitlement
from protocol.events import BATCH_EVENTS_MAX, UsageEvent

PENDING_EVENTS_MAX = 50_000

Notify = Callable[[bool], None]
"""Called once with whether the write is on disk."""


class PendingEvent(msgspec.Struct, gc=False):
    """An event on its way to the disk, and who waits for it."""

    event: UsageEvent
    ended: Ended
    waiters: list[Notify]


@dataclass(slots=True)
class LeaseRow:
    """A lease as it shall stand on disk. ``freeing``: what the calls held whose rows the same group deletes."""

    lease: Lease
    cap: int
    watermark: int
    settled: int
    orphan: int
    closing: bool
    freeing: int


@dataclass(slots=True)
class Group:
    """One commit group. ``freed``: customers of whom it frees something that others wait for."""

    events: list[PendingEvent]
    rows: list[LeaseRow]
    opened: list[Reservation]
    ended: list[str]
    forgotten: list[str]
    entitlements: dict[str, Entitlement | None]
    high_water: dict[int, int]
    waiters: list[Notify]
    freed: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Pending:
    """Everything that the next commit group will hold.

    Attributes:
        events, leases, opened, ended, forgotten, high_water: what is to be written.
        entitlements: to be written, or to be dropped (``None``).
        waiters: who waits until all that is pending now is on disk (releases, repeats).
        urgent: somebody waits; the writer must not linger.
    """

    events: list[PendingEvent] = field(default_factory=list)
    leases: dict[str, Lease] = field(default_factory=dict)
    opened: dict[str, Reservation] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    entitlements: dict[str, Entitlement | None] = field(default_factory=dict)
    high_water: dict[int, int] = field(default_factory=dict)
    waiters: list[Notify] = field(default_factory=list)
    urgent: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write, but for calls in flight that are young."""
        return not (
            self.events
            or self.leases
            or self.ended
            or self.forgotten
            or self.entitlements
            or self.high_water
            or self.waiters
        )

    @property
    def full(self) -> bool:
        """Whether no further event may be taken in before the disk has caught up."""
        return len(self.events) >= PENDING_EVENTS_MAX

    def touch(self, lease: Lease) -> None:
        """This lease's row must be written."""
        self.leases[lease.id] = lease

    def overdue(self, opened_before_ms: int) -> bool:
        """Whether a call in flight has lived long enough to be journaled."""
        first = next(iter(self.opened.values()), None)
        return first is not None and first.opened_at_ms <= opened_before_ms

    def gather(self, step_of: Callable[[Lease], int], opened_before_ms: int) -> Group:
        """Take everything out as one group, at most as many events as one batch may hold.

        Calls in flight that began after ``opened_before_ms`` stay: most end before they need a row, and until then a
        crash is covered by the watermark (their settle says whose call it was).

        Watermarks that fall are lowered in memory first, so that nothing is used beyond what the disk will say; those
        that rise are raised only after the commit (see ``applied``). Events beyond the batch stay for the next group,
        and so do those leases' rows: a row never says that more is settled than its events on disk do.
        """
        events, self.events = self.events[:BATCH_EVENTS_MAX], self.events[BATCH_EVENTS_MAX:]
        unwritten: dict[str, int] = {}
        for later in self.events:
            for charge in later.event.charges:
                unwritten[charge.lease] = unwritten.get(charge.lease, 0) + charge.amount
        rows = []
        for lease in self.leases.values():
            watermark = lease.target_watermark(step_of(lease))
            lease.watermark = min(lease.watermark, watermark)
            settled = lease.settled - unwritten.get(lease.id, 0)
            rows.append(LeaseRow(lease, lease.cap, watermark, settled, lease.orphan, lease.closing, lease.freeing))
        again = {lease_id: self.leases[lease_id] for lease_id in unwritten if lease_id in self.leases}
        opened = [held for held in self.opened.values() if held.opened_at_ms <= opened_before_ms]
        waiters, self.waiters = ([], self.waiters) if self.events else (self.waiters, [])
        group = Group(
            events,
            rows,
            opened,
            self.ended,
            self.forgotten,
            self.entitlements,
            self.high_water,
            waiters,
        )
        for reservation in group.opened:
            reservation.journaled = True
            del self.opened[reservation.id]
        self.leases, self.ended, self.forgotten = again, [], []
        self.entitlements, self.high_water = {}, {}
        self.urgent = bool(self.events)
        return group

    def put_back(self, group: Group) -> None:
        """The commit failed: nothing of the group is lost, all of it is written next time."""
        self.events = group.events + self.events
        for row in group.rows:
            self.leases.setdefault(row.lease.id, row.lease)
        for reservation in group.opened:
            self.opened.setdefault(reservation.id, reservation)
        self.ended = group.ended + self.ended
        self.forgotten = group.forgotten + self.forgotten
        self.entitlements = {**group.entitlements, **self.entitlements}
        self.high_water = {**group.high_water, **self.high_water}


def applied(group: Group) -> None:
    """The group is on disk: raise the watermarks, and let durable numbers be reported."""
    for row in group.rows:
        lease = row.lease
        lease.written = True
        lease.freeing -= row.freeing
        if not lease.closing:
            lease.watermark = min(lease.cap, max(lease.watermark, row.watermark))
        lease.durable_settled, lease.durable_cap, lease.durable_orphan = row.settled, row.cap, row.orphan
    for pending in group.events:
        pending.ended.durable = True
