"""What may be held at the same time: leases of slots, which calls give back as they end. Nothing of them is used up."""

from __future__ import annotations

from agent.core.budget import Allowance
from agent.core.leases import Lease


class SlotLease(Lease):
    """So many slots lent to this agent. ``settled`` stays 0: the end of a call gives all of its hold back.

    What a crash orphaned is held until the calls it may have been cannot live any longer, and is free then.
    """

    __slots__ = ()

    def end_hold(self, hold: int, used: int, journaled: bool) -> int:  # noqa: ARG002 - nothing is used up
        """The call has ended, whatever it used: its slots are free, and nothing is charged."""
        self.held -= hold
        if journaled:
            self.freeing += hold
        return 0

    def let_go(self, now_ms: int) -> bool:
        """Free what a crash orphaned, once no call of then can still be in flight; whether there was something."""
        if self.orphan == 0 or now_ms < self.orphan_until_ms:
            return False
        self.orphan = 0
        return True

    def over(self, now_ms: int) -> bool:  # noqa: ARG002 - it has no end
        """Whether nothing is left of it."""
        return self.cap == 0

    @property
    def done(self) -> bool:
        """Whether it may be reported as closed: nothing is held, not even perhaps."""
        return self.orphan == 0 and super().done


class SlotAllowance(Allowance):
    """The slots of one counter as this agent sees them."""

    __slots__ = ()

    def watermark_step(self) -> int:
        """How far the journal runs ahead: the calls of one commit. By that much, a crash blocks slots for minutes."""
        return max(1, self.typical, self.demand_per_min // 1_200, self.awaited)

    def charge(self, amount: int, now_ms: int) -> list[tuple[Lease, int, bool]]:  # noqa: ARG002 - nothing is
        """What nobody holds takes no slot: it is over."""
        return []

    def held_here(self, now_ms: int) -> int:
        """What calls in flight here hold of leases that may be used again when they end."""
        return sum(lease.held + lease.freeing for lease in self.live(now_ms, drain=False))
