"""When to ask for more, and when to give back. Pure.

Source of the rules: the threshold re-authorisation and quota-holding time of telecom charging (3GPP TS 32.299).
"""

from __future__ import annotations

from agent.core.budget import DEMAND_STEP_MS, Allowance, Lease
from protocol.units import QUANTITY_MAX

IDLE_RETURN_MS = 45_000
"""A lease from which nothing has been taken for so long goes back."""

CENTRAL_RETURN_MS = 2_000
"""A lease that was lent for one call goes back at its settle, or so long after nobody used it."""


def asks_ahead(allowance: Allowance, now_ms: int) -> bool:
    """Whether to ask for the next lease before this one is used up: under a quarter left as of the last look, and
    nothing under way."""
    if allowance.ask is not None or now_ms < allowance.denied_until_ms:
        return False
    return 4 * allowance.free_now < allowance.granted_last and not allowance.leases[-1].central


def asked_demand(allowance: Allowance, now_ms: int) -> int:
    """The demand a minute that an ask states.

    The average; or, where that is more, what the present second has seen so far, or what would serve the waiting calls
    within two seconds.
    """
    elapsed_ms = max(now_ms - allowance.since_ms, DEMAND_STEP_MS // 4)
    lately = allowance.reserved_since * 60_000 // elapsed_ms if elapsed_ms < 2 * DEMAND_STEP_MS else 0
    return min(QUANTITY_MAX, max(allowance.demand_per_min, lately, allowance.backlog * 30))


def goes_back(lease: Lease, allowance: Allowance, now_ms: int) -> bool:
    """Whether a lease should be given up: its window is over, it is used up, idle, or no longer known to the lender.

    One that a crash may have orphaned stays until a late settle can no longer come.
    """
    if lease.closing:
        return False
    if lease.disowned:
        return True
    if lease.orphan and now_ms < lease.orphan_until_ms:
        return False
    if lease.window_ends_at_ms <= now_ms or lease.settled + lease.orphan >= lease.cap:
        return True
    idle_ms = now_ms - allowance.last_debit_ms
    return lease.held == 0 and idle_ms >= (CENTRAL_RETURN_MS if lease.central else IDLE_RETURN_MS)


def renewal_due(lease: Lease, now_ms: int) -> bool:
    """Whether a lease has lived half its term and should be reported so that it gets another."""
    return lease.expires_at_ms - now_ms < lease.ttl_ms // 2
