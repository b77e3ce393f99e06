"""When to ask for more, and when to give back. Pure.

Source of the rules: the threshold re-authorisation and quota-holding time of telecom charging (3GPP TS 32.299).
"""

from __future__ import annotations

from agent.core.budget import DEMAND_HALF_LIFE_MS, DEMAND_STEP_MS, Allowance
from agent.core.leases import Lease
from protocol.units import QUANTITY_MAX

IDLE_RETURN_MS = 36_000
"""A lease from which nothing has been taken for so long goes back."""

CENTRAL_RETURN_MS = 2_000
"""A lease that was lent for one call goes back at its settle, or so long after nobody used it."""

GROWTH_MAX = 2
FIRST_GROWTH_MAX = 4
"""How many times the last lease a burst may ask for, to last a minute; the second, as long as the demand is not known.
As leases last half a minute, those of a host that has just become busy double."""

BURST_MS = 5_000
"""For how long a burst is expected to last."""


def asks_ahead(allowance: Allowance, now_ms: int, round_trip_ms: int) -> bool:
    """Whether to ask for the next lease before this one is used up: under a quarter left as of the last look, or less
    than is taken while two exchanges pass; and nothing under way.

    Args:
        round_trip_ms: how long an exchange with the control plane has taken lately.
    """
    if allowance.ask is not None or now_ms < allowance.denied_until_ms or allowance.leases[-1].central:
        return False
    left = allowance.free_now
    return 4 * left < allowance.granted_last or left * 30_000 < allowance.demand_per_min * round_trip_ms


def asked_demand(allowance: Allowance, now_ms: int) -> int:
    """The demand a minute that an ask states: what is reserved on the average.

    Where more than one call waits, or the present second has seen more, so much more as serves them and ``BURST_MS``
    of that, bounded by the last lease: a burst makes leases grow step by step, and they shrink at once.
    """
    elapsed_ms = max(now_ms - allowance.since_ms, 1)
    lately = allowance.reserved_since * BURST_MS // max(elapsed_ms, DEMAND_STEP_MS // 4)
    burst = max(lately if elapsed_ms < 2 * DEMAND_STEP_MS else 0, 2 * (allowance.backlog - allowance.ask_need))
    growth_max = GROWTH_MAX if allowance.demand_per_min else FIRST_GROWTH_MAX
    return min(QUANTITY_MAX, max(_average(allowance, elapsed_ms), min(burst, growth_max * allowance.granted_last)))


def _average(allowance: Allowance, elapsed_ms: int) -> int:
    """The average as it would be noted now: it falls while nothing is reserved. One call alone shows no rate."""
    if elapsed_ms < 2 * DEMAND_STEP_MS or not allowance.typical:
        return allowance.demand_per_min
    seen = allowance.reserved_since if allowance.demand_per_min else allowance.reserved_since - allowance.typical
    rate = max(1, seen * 60_000 // elapsed_ms)
    weight = min(elapsed_ms, DEMAND_HALF_LIFE_MS) if allowance.demand_per_min else DEMAND_HALF_LIFE_MS
    return (allowance.demand_per_min * (DEMAND_HALF_LIFE_MS - weight) + rate * weight) // DEMAND_HALF_LIFE_MS


def brings_back(lease: Lease) -> bool:
    """Whether a report of it returns something: the control plane should hear of that soon, others may wait for it."""
    return lease.durable_cap < lease.reported.cap if lease.reported else lease.done


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
    if lease.over(now_ms):
        return True
    idle_ms = now_ms - allowance.last_debit_ms
    for_few_calls = lease.central or lease.finishing
    return lease.held == 0 and idle_ms >= (CENTRAL_RETURN_MS if for_few_calls else IDLE_RETURN_MS)


def renewal_due(lease: Lease, now_ms: int) -> bool:
    """Whether a lease has lived half its term and should be reported so that it gets another."""
    return lease.expires_at_ms - now_ms < lease.ttl_ms // 2
