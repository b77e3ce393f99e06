"""One lease: a slice of an allowance lent to this agent. Whole numbers, no clocks, no I/O.

For every lease, always: ``settled + held + orphan <= watermark <= cap <= granted``. The watermark is what the journal
on disk says may have been used; nothing is used beyond it, so that a crash at any moment charges at least the truth.
(A settle that reports more than was reserved is the exception that the world makes: it is journaled with its event.)
"""

from __future__ import annotations

from protocol.leases import Grant, LeaseReport

AllowanceKey = tuple[str, str, str]
"""customer, counter, scope value."""


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
        starts_at_ms, window_ends_at_ms, expires_at_ms, orphan_until_ms: on the agent's monotonic clock.
        begun: its window has come. One that was granted ahead is on disk at once, but covered there only from then on.
        finishing: only for calls in flight that go on beyond the limit.
        granted, seal: as the control plane gave it, to be shown to it should it forget.
        given_back: what calls had held and not used: how much of what is held now may come back, too.
        closing: on its way back; nothing new is taken from it. disowned: the control plane does not know it.
    """

    __slots__ = (
        "begun", "cap", "central", "closing", "counter", "customer", "disowned", "durable_cap", "durable_orphan",
        "durable_settled", "expires_at_ms", "finishing", "freeing", "given_back", "granted", "held", "id", "key",
        "orphan", "orphan_until_ms", "overage", "reported", "scope_value", "seal", "settled", "starts_at_ms", "ttl_ms",
        "watermark", "window_end_ms", "window_ends_at_ms", "window_start_ms", "written",
    )  # fmt: skip

    def __init__(self, grant: Grant, asked_at_ms: int) -> None:
        self.id = grant.lease
        self.key: AllowanceKey = (grant.customer, grant.counter, grant.scope_value)
        self.customer = grant.customer
        self.counter = grant.counter
        self.scope_value = grant.scope_value
        self.granted = grant.amount
        self.seal = grant.seal
        self.cap = self.durable_cap = grant.amount
        self.watermark = 0
        self.settled = self.durable_settled = 0
        self.held = self.freeing = self.given_back = 0
        self.orphan = self.durable_orphan = 0
        self.orphan_until_ms = 0
        self.overage = grant.overage
        self.central = grant.central
        self.finishing = grant.finishing
        self.window_start_ms = grant.window_start_ms
        self.window_end_ms = grant.window_end_ms
        self.window_ends_at_ms = asked_at_ms + grant.window_left_ms
        self.starts_at_ms = asked_at_ms + grant.starts_in_ms
        self.begun = grant.starts_in_ms == 0
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

    def over(self, now_ms: int) -> bool:
        """Whether nothing can be used of it any longer: its window is over, or all of it is used."""
        return self.window_ends_at_ms <= now_ms or self.settled + self.orphan >= self.cap

    def renew(self, ttl_ms: int, asked_at_ms: int) -> None:
        """A new term, counted from the moment the agent asked, with a margin for clocks that run apart."""
        self.ttl_ms = ttl_ms
        self.expires_at_ms = max(self.expires_at_ms, asked_at_ms + _shortened(ttl_ms))

    def lower(self, keep: int) -> None:
        """Give back what is neither used nor to be kept. The cap on disk falls before anybody is told."""
        self.cap = min(self.cap, self.used + keep)
        self.watermark = min(self.watermark, self.cap)

    def give_up(self, now_ms: int) -> None:  # noqa: ARG002 - what fills with time must know it
        """Nothing new is taken from it; what nobody uses goes home."""
        self.closing = True
        self.lower(0)

    def end_hold(self, hold: int, used: int, journaled: bool) -> int:
        """A call that held so much of it has ended: what it used is settled, the rest is free again.

        Args:
            used: by the call, perhaps more than it held here. journaled: the call has a row on disk, see ``freeing``.

        Returns:
            what is charged to this lease.
        """
        part = min(used, hold)
        self.held -= hold
        self.settled += part
        if part < hold:
            self.given_back += hold - part
            if journaled:
                self.freeing += hold - part
        return part

    def target_watermark(self, step: int) -> int:
        """Where the journal's watermark should stand: a step ahead of what is used, never beyond the cap."""
        return self.used if self.closing or not self.begun else min(self.cap, self.used + step)

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
