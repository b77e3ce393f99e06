"""Which kind of lease and allowance belongs to a counter: quotas, rates, and what is held at the same time."""

from __future__ import annotations

from agent.core.budget import Allowance
from agent.core.leases import AllowanceKey, Lease
from agent.core.rates import RateAllowance, RateShare
from agent.core.slots import SlotAllowance, SlotLease
from protocol.leases import Grant
from protocol.windows import WindowKind


def new_lease(grant: Grant, asked_at_ms: int, now_ms: int) -> Lease:
    """The lease that a grant makes.

    Args:
        now_ms: when the grant arrived; its term counts from when it was asked for.
    """
    if grant.per_ms:
        return RateShare(grant, asked_at_ms, now_ms)
    if _window(grant.counter) == WindowKind.IN_FLIGHT:
        return SlotLease(grant, asked_at_ms)
    return Lease(grant, asked_at_ms)


def new_allowance(key: AllowanceKey, now_ms: int) -> Allowance:
    """The entry of a counter of which nothing is known yet."""
    if is_rate(key[1]):
        return RateAllowance(key, now_ms)
    return SlotAllowance(key, now_ms) if _window(key[1]) == WindowKind.IN_FLIGHT else Allowance(key, now_ms)


def is_rate(counter: str) -> bool:
    """Whether a counter is a rate's."""
    return _window(counter).endswith("-rate")


def _window(counter: str) -> str:
    """The window in the name of a counter: ``feature/meter/window/scope``, and no key holds a slash."""
    parts = counter.split("/")
    return parts[2] if len(parts) > 2 else ""
