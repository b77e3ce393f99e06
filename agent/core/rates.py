"""Rates: shares of a rate lent to this agent, each with a token bucket of its own. Whole numbers, exact at any speed.

A bucket fills evenly and is never journaled: after a restart all shares go home empty. In every span of time a share
admits at most its burst and its rate times the span, so all shares of a rate together admit at most the whole.
"""

from __future__ import annotations

from agent.core.budget import Allowance
from agent.core.leases import AllowanceKey, Lease
from protocol.leases import Grant, LeaseReport, burst_left
from protocol.units import QUANTITY_MAX


class RateShare(Lease):
    """A share of a rate: ``cap`` units every ``per_ms`` milliseconds, of which ``burst`` may be saved up.

    Attributes:
        bucket: what is saved up, in parts of which ``per_ms`` make one unit, so that nothing is ever rounded. Negative
            after calls that used more than they held.
        filled_at_ms: up to when it has been filled. It begins when the answer arrives, not when it was asked for: until
            then the lender's own bucket was filled.
        dropped: what was saved up beyond the burst when the share was lowered last; the lender takes it back.
        left: what was saved up when the share was given up.
    """

    __slots__ = ("bucket", "burst", "dropped", "filled_at_ms", "left", "lent", "lent_burst", "per_ms")

    def __init__(self, grant: Grant, asked_at_ms: int, now_ms: int) -> None:
        super().__init__(grant, asked_at_ms)
        self.lent = grant.amount
        self.lent_burst = self.burst = grant.burst
        self.per_ms = max(1, grant.per_ms)
        self.bucket = min(grant.level, grant.burst) * self.per_ms
        self.filled_at_ms = now_ms
        self.dropped = self.left = 0

    @property
    def level(self) -> int:
        """Whole units saved up, as of the last filling; negative when it owes some."""
        return self.bucket // self.per_ms

    def fill(self, now_ms: int) -> int:
        """Let it fill up to now; what is saved up then."""
        elapsed_ms = now_ms - self.filled_at_ms
        if elapsed_ms > 0:
            self.bucket = min(self.burst * self.per_ms, self.bucket + elapsed_ms * self.cap)
            self.filled_at_ms = now_ms
        return self.bucket // self.per_ms

    def pour(self, amount: int) -> None:
        """Take units out (or, negative, put back what a call held and did not use; what runs over is lost)."""
        self.bucket = min(self.burst * self.per_ms, self.bucket - amount * self.per_ms)

    def end_hold(self, hold: int, used: int, journaled: bool) -> int:  # noqa: ARG002 - nothing of it is
        """The call has ended: what it did not use is saved up again, and nothing is charged."""
        if used < hold and not self.closing:
            self.pour(used - hold)
        return 0

    def over(self, now_ms: int) -> bool:
        """Whether its term has passed: a share is never used beyond it, whatever is left to do elsewhere."""
        return self.cap == 0 or self.expires_at_ms <= now_ms

    def lower(self, keep: int) -> None:
        """Keep so much of the rate, and as much of the burst as belongs to it."""
        if keep >= self.cap:
            return
        self.cap = self.durable_cap = keep  # not journaled: after a restart nothing is kept at all
        self.burst = burst_left(self.lent, self.lent_burst, keep)
        most = self.burst * self.per_ms
        self.dropped = max(0, self.bucket - most) // self.per_ms
        self.bucket = min(self.bucket, most)

    def give_up(self, now_ms: int) -> None:
        """Nothing more is taken from it; what is saved up is told with its end."""
        if not self.closing:
            self.left = max(0, self.fill(now_ms))
            self.closing = True

    def target_watermark(self, step: int) -> int:  # noqa: ARG002 - there is none
        """The journal need not run ahead: a crash charges nothing."""
        return 0

    def report(self) -> LeaseReport:
        """The share that is kept, and what goes home with the rest of it."""
        closed = self.done
        return LeaseReport(self.id, self.cap, 0, closed=closed, level=self.left if closed else self.dropped)


class RateAllowance(Allowance):
    """One rate as this agent sees it.

    Attributes:
        burst_max: the most that all hosts together admit at once, by the plan.
        owed: what the last share owed when it went home, and what was used while there was none; the next one pays.
        queued: what calls lack that wait for it to fill, first come first served; newcomers stand behind them.
    """

    __slots__ = ("burst_max", "owed", "queued")
    asks_early = False

    def __init__(self, key: AllowanceKey, now_ms: int) -> None:
        super().__init__(key, now_ms)
        self.burst_max = 0
        self.owed = 0
        self.queued = 0

    def need_of_all(self, need: int) -> int:
        """A share must be able to hold the largest call that waits."""
        return max(self.ask_need, need)

    def rests_for(self, need: int) -> bool:
        """Who has its fair share asks again only for a larger call."""
        return need <= self.ask_need

    def rest(self) -> None:
        """An ask was passed over in silence: no call is too large to rest."""
        self.ask_need = QUANTITY_MAX

    def live(self, now_ms: int, *, drain: bool) -> list[Lease]:  # noqa: ARG002 - never
        """Shares whose term lasts, whatever the limit says of being offline: clocks rule rates."""
        return [lease for lease in self.leases if not lease.closing and lease.expires_at_ms > now_ms]

    def take_in(self, lease: Lease) -> None:
        """A share has been lent; it pays what the last one owed."""
        super().take_in(lease)
        assert isinstance(lease, RateShare)
        lease.pour(self.owed)
        self.owed = 0
        self.granted_last = lease.cap * 60_000 // lease.per_ms

    def take_out(self, lease: Lease) -> None:
        """A share has gone home; what it owes is still owed."""
        super().take_out(lease)
        assert isinstance(lease, RateShare)
        self.owed += max(0, -lease.level)

    def look(self, now_ms: int, *, drain: bool) -> int:  # noqa: ARG002 - never
        """How much may be taken now by a newcomer; what is noted counts those before it in."""
        level = 0
        for lease in self.leases:
            if not lease.closing and lease.expires_at_ms > now_ms:
                level += lease.fill(now_ms)  # type: ignore[attr-defined]  # all of them are shares
        self.free_now, self.used_now, self.lapsed_now = level, max(0, self.burst_max - level), False
        return level - self.queued

    def take(self, amount: int, now_ms: int, *, drain: bool) -> list[tuple[Lease, int]]:  # noqa: ARG002 - never
        """Take ``amount`` out of the buckets, or as much of it as is there."""
        holds: list[tuple[Lease, int]] = []
        for share in self._shares(now_ms):
            part = min(amount, share.level)
            if part > 0:
                share.pour(part)
                holds.append((share, part))
                amount -= part
                self.free_now -= part
                self.used_now += part
        self.last_debit_ms = now_ms
        return holds

    def charge(self, amount: int, now_ms: int) -> list[tuple[Lease, int, bool]]:
        """Used although nobody had reserved it: out of the buckets, which may owe it. No lease is used up by it."""
        shares = self._shares(now_ms)
        for share in shares:
            part = min(amount, max(0, share.level))
            share.pour(part)
            amount -= part
        if shares:
            shares[0].pour(amount)
        else:
            self.owed += amount
        return []

    def fills_in_ms(self, amount: int, now_ms: int) -> int | None:
        """In how long so much may be taken behind those who wait; ``None``: never, with the shares held now."""
        shares = self._shares(now_ms)
        if amount > sum(share.burst for share in shares):
            return None
        lack = (amount + self.queued) * max((share.per_ms for share in shares), default=1)
        lack -= sum(share.bucket for share in shares)
        if lack <= 0:
            return 0
        filling = sum(share.cap for share in shares if share.bucket < share.burst * share.per_ms)
        return -(-lack // filling) if filling else None

    def _shares(self, now_ms: int) -> list[RateShare]:
        shares = [lease for lease in self.live(now_ms, drain=False) if isinstance(lease, RateShare)]
        for share in shares:
            share.fill(now_ms)
        return shares
