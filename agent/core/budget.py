"""What this agent may spend: leases, and the allowances they are slices of. Whole numbers, no clocks, no I/O.

For every lease, always: ``settled + held + orphan <= watermark <= cap <= granted``. The watermark is what the journal
on disk says may have been used; nothing is used beyond it, so that a crash at any moment charges at least the truth.
(A settle that reports more than was reserved is the exception that the world makes: it is journaled with its event.)
"""

from __future__ import annotations

from protocol.instants import rfc3339
from protocol.leases import Denial, Grant, LeaseReport, Standing

AllowanceKey = tuple[str, str, str]
"""customer, counter, scope value."""

DEMAND_HALF_LIFE_MS = 15_000
DEMAND_STEP_MS = 1_000


class Lease:
    """A slice of an allowance lent to this agent. It never grows; its cap only falls.

    Attributes:
        key: which allowance it is a slice of.
        watermark: used up to here is covered by the journal on disk.
        settled: charged by events. ``durable_settled`` is the part whose events are on disk: only that is reported.
        held: by calls in flight. orphan: perhaps used before a crash by calls that the journal does not know.
        freeing: no longer held in memory, by calls whose row is still on disk: free once the disk knows their end. Else
            a crash would take what is used of it by then for what those calls hold.
        orphan_until_ms: until when a late settle may still say what the orphan part was.
        window_ends_at_ms, expires_at_ms, orphan_until_ms: on the agent's monotonic clock.
        closing: on its way back; nothing new is taken from it. disowned: the control plane does not know it.
    """

    __slots__ = (
        "cap", "central", "closing", "counter", "customer", "disowned", "durable_cap", "durable_orphan",
        "durable_settled", "expires_at_ms", "freeing", "held", "id", "key", "orphan", "orphan_until_ms", "overage", "reported",
        "scope_value", "settled", "ttl_ms", "watermark", "window_end_ms", "window_ends_at_ms", "window_start_ms",
        "written",
    )  # fmt: skip

    def __init__(self, grant: Grant, asked_at_ms: int) -> None:
        self.id = grant.lease
        self.key: AllowanceKey = (grant.customer, grant.counter, grant.scope_value)
        self.customer = grant.customer
        self.counter = grant.counter
        self.scope_value = grant.scope_value
        self.cap = self.durable_cap = grant.amount
        self.watermark = 0
        self.settled = self.durable_settled = 0
        self.held = self.freeing = 0
        self.orphan = self.durable_orphan = 0
        self.orphan_until_ms = 0
        self.overage = grant.overage
        self.central = grant.central
        self.window_start_ms = grant.window_start_ms
        self.window_end_ms = grant.window_end_ms
        self.window_ends_at_ms = asked_at_ms + grant.window_left_ms
        self.ttl_ms = grant.ttl_ms
        self.expires_at_ms = asked_at_ms + _shortened(grant.ttl_ms)
        self.closing = False
        self.disowned = False
        self.written = False
        self.reported: LeaseReport | None = None

    @property
    def used(self) -> int:
        """What is used or may have been."""
        return self.settled + self.held + self.orphan

    @property
    def free(self) -> int:
        """What may still be used, once the journal covers it."""
        return self.cap - self.settled - self.held - self.orphan

    def renew(self, ttl_ms: int, asked_at_ms: int) -> None:
        """A new term, counted from the moment the agent asked, with a margin for clocks that run apart."""
        self.ttl_ms = ttl_ms
        self.expires_at_ms = max(self.expires_at_ms, asked_at_ms + _shortened(ttl_ms))

    def lower(self, keep: int) -> None:
        """Give back what is neither used nor to be kept. The cap on disk falls before anybody is told."""
        self.cap = min(self.cap, self.used + keep)
        self.watermark = min(self.watermark, self.cap)

    def target_watermark(self, step: int) -> int:
        """Where the journal's watermark should stand: a step ahead of what is used, never beyond the cap."""
        return self.used if self.closing else min(self.cap, self.used + step)

    @property
    def done(self) -> bool:
        """Whether the final numbers may be reported: given up, nothing in flight, everything on disk."""
        return (
            self.closing
            and self.held == 0
            and self.durable_settled == self.settled
            and self.durable_cap == self.cap
            and self.durable_orphan == self.orphan
        )

    def report(self) -> LeaseReport:
        """What may be said of it: durable numbers only, so that a crash never takes back what was said."""
        return LeaseReport(self.id, self.durable_cap, self.durable_settled, self.held, self.durable_orphan, self.done)


def _shortened(ttl_ms: int) -> int:
    """The holder's own term: shorter than the lender's by 0.5 % and 250 ms, so that it always ends first."""
    return max(0, ttl_ms - ttl_ms // 200 - 250)


class Allowance:
    """One counter of one customer as this agent sees it: the leases it holds, and what it was last told.

    Attributes:
        ask: the id that the lease asked for will have, while an ask is outstanding; ``ask_need`` its least amount.
        backlog: what waiting calls lacked since the last ask; they make the next ask larger.
        awaited: what calls wait for that is leased but not yet covered by the journal.
        free_now, used_now, lapsed_now: what the last look showed: what may still be taken, what is used in this window
            as far as is known here, and whether a lease beyond its term is among those that are drained.
        granted_last: size of the newest lease, the measure of when to ask ahead.
    """

    __slots__ = (
        "ask", "ask_need", "awaited", "backlog", "counter", "customer", "demand_per_min", "denial",
        "denied_until_ms", "free_now", "granted_last", "key", "lapsed_now", "last_debit_ms", "leases",
        "reserved_since", "resets_at", "scope_value", "since_ms", "standing", "typical", "used_now",
        "window_end_ms", "window_ends_at_ms",
    )  # fmt: skip

    def __init__(self, key: AllowanceKey, now_ms: int) -> None:
        self.key = key
        self.customer, self.counter, self.scope_value = key
        self.leases: list[Lease] = []
        self.ask: str | None = None
        self.ask_need = 0
        self.backlog = 0
        self.awaited = 0
        self.granted_last = 0
        self.free_now = self.used_now = 0
        self.lapsed_now = False
        self.standing: Standing | None = None
        self.denial: Denial | None = None
        self.denied_until_ms = 0
        self.typical = 0
        self.demand_per_min = 0
        self.reserved_since = 0
        self.since_ms = now_ms
        self.last_debit_ms = now_ms
        self.window_end_ms: int | None = None
        self.window_ends_at_ms = 0
        self.resets_at: str | None = None

    def live(self, now_ms: int, *, drain: bool) -> list[Lease]:
        """Leases that may be spent: their window lasts, they are not being returned, and their term lasts (or the
        limit says to drain them all the same)."""
        return [
            lease
            for lease in self.leases
            if lease.window_ends_at_ms > now_ms and not lease.closing and (drain or lease.expires_at_ms > now_ms)
        ]

    def look(self, now_ms: int, *, drain: bool) -> int:
        """How much may be taken now without touching the disk; what else one look shows is noted for this moment.

        One loop over the leases, written out: it runs for every limit of every call.
        """
        usable = free = 0
        used = self.standing.elsewhere if self.standing is not None and self.window_ends_at_ms > now_ms else 0
        lapsed = False
        for lease in self.leases:
            if lease.window_ends_at_ms <= now_ms:
                continue
            mine = lease.settled + lease.held + lease.orphan
            used += mine
            in_term = lease.expires_at_ms > now_ms
            if not lease.closing and (drain or in_term):
                usable += lease.watermark - mine - lease.freeing
                free += lease.cap - mine
                lapsed = lapsed or not in_term
        self.free_now, self.used_now, self.lapsed_now = free, used, lapsed
        return usable

    def free(self, now_ms: int, *, drain: bool) -> int:
        """How much may be taken once the journal's watermarks have been raised."""
        self.look(now_ms, drain=drain)
        return self.free_now

    def used(self, now_ms: int) -> int:
        """What is used in the present window, as far as is known here."""
        self.look(now_ms, drain=True)
        return self.used_now

    def take(self, amount: int, now_ms: int, *, drain: bool) -> list[tuple[Lease, int]]:
        """Hold ``amount``, or as much of it as is usable, on the leases that were granted first.

        What the last look has noted stays true.
        """
        holds: list[tuple[Lease, int]] = []
        for lease in self.leases:
            if lease.window_ends_at_ms <= now_ms or lease.closing or not (drain or lease.expires_at_ms > now_ms):
                continue
            usable = lease.watermark - lease.settled - lease.held - lease.orphan - lease.freeing
            part = min(amount, usable)
            if part > 0:
                lease.held += part
                holds.append((lease, part))
                amount -= part
                self.free_now -= part
                self.used_now += part
            if amount == 0:
                break
        self.last_debit_ms = now_ms
        return holds

    def charge(self, amount: int, now_ms: int) -> list[tuple[Lease, int, bool]]:
        """Settle ``amount`` that nobody had reserved, as far as there is room; what a crash orphaned goes first (and is
        marked so: it may have been another call's).

        What finds no room is charged by the control plane directly. The event that says so is journaled with it.
        """
        charges: list[tuple[Lease, int, bool]] = []
        for lease in self.leases:
            if lease.orphan and amount and lease.window_ends_at_ms > now_ms:
                part = min(amount, lease.orphan)
                lease.orphan -= part
                lease.settled += part
                charges.append((lease, part, True))
                amount -= part
        for lease in self.live(now_ms, drain=True):
            part = min(amount, lease.free)
            if part > 0:
                lease.settled += part
                lease.watermark = max(lease.watermark, lease.used)
                charges.append((lease, part, False))
                amount -= part
        self.last_debit_ms = now_ms
        return charges

    def note_demand(self, amount: int, now_ms: int) -> None:
        """Keep an average of what is reserved a minute, with a half-life of 15 seconds, and of what one call takes.

        The first second of a demand that was nothing before counts in full: a host that becomes busy must not live
        from one small lease to the next.
        """
        self.reserved_since += amount
        self.typical = amount if not self.typical else (7 * self.typical + amount + 7) // 8
        elapsed = now_ms - self.since_ms
        if elapsed >= DEMAND_STEP_MS:
            rate = self.reserved_since * 60_000 // elapsed
            weight = min(elapsed, DEMAND_HALF_LIFE_MS) if self.demand_per_min else DEMAND_HALF_LIFE_MS
            self.demand_per_min = (
                self.demand_per_min * (DEMAND_HALF_LIFE_MS - weight) + rate * weight
            ) // DEMAND_HALF_LIFE_MS
            self.reserved_since = 0
            self.since_ms = now_ms

    def deny(self, denial: Denial, now_ms: int, asked_at_ms: int) -> None:
        """Remember a refusal for a while, so that a dry allowance does not cause a storm of asks."""
        self.denial = denial
        self.denied_until_ms = now_ms + max(50, denial.retry_in_ms)
        self.stand(denial.standing, denial.window_end_ms, asked_at_ms + denial.window_left_ms)

    def forget_denial(self) -> None:
        """Something came back, or the plan changed: asking makes sense again."""
        self.denial = None
        self.denied_until_ms = 0

    def stand(self, standing: Standing, window_end_ms: int, window_ends_at_ms: int) -> None:
        """Take note of how the whole allowance stands."""
        self.standing = standing
        if window_end_ms != self.window_end_ms:
            self.window_end_ms = window_end_ms
            self.resets_at = rfc3339(window_end_ms)
        self.window_ends_at_ms = window_ends_at_ms
