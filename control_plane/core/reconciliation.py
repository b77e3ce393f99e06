"""Events against the ledger: which of a batch are new, what repetitions mean, and what no lease paid. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from dataclasses import dataclass

import msgspec

from protocol.entitlements import Limit, limits_on_path, scope_value
from protocol.events import UsageEvent
from protocol.windows import Calendar, Window

LATE_MS_MAX = 40 * 86_400_000
EARLY_MS_MAX = 5 * 60_000

_deterministic = msgspec.msgpack.Encoder(order="deterministic").encode


def new_part(high_water: int, first: int, count: int) -> int | None:
    """How many events at the head of a batch are already accepted; ``None`` where a gap lies before it."""
    if first > high_water + 1:
        return None
    return min(count, high_water + 1 - first)


def counted_at_ms(at_ms: int, received_at_ms: int) -> int:
    """When an event counts: its own time, within what a clock or an outage may explain."""
    return max(0, min(max(at_ms, received_at_ms - LATE_MS_MAX), received_at_ms + EARLY_MS_MAX))


def is_late(at_ms: int, received_at_ms: int, grace_ms: int) -> bool:
    """Whether an event is too old to count; the grace is at most ``LATE_MS_MAX``."""
    return at_ms < received_at_ms - grace_ms


def counts_from(at_ms: int, closed_until_ms: int) -> int:
    """When an event counts whose own time may lie in a billing period that is closed: then at the next one's start."""
    return max(at_ms, closed_until_ms)


def digest(event: UsageEvent) -> bytes:
    """What an event says, for telling a repetition from a contradiction: the SHA-256 of :func:`said`."""
    return hashlib.sha256(said(event)).digest()


def said(event: UsageEvent) -> bytes:
    """What an event says, as bytes that are always the same for the same.

    Without its charges, its time, its entitlement version and what rates made of it: a caller that repeats itself after
    its agent was restarted says the same, but is answered by other leases, and perhaps under another plan.
    """
    amounts = event.amounts
    if event.derived:
        amounts = {meter: amount for meter, amount in amounts.items() if meter not in event.derived}
    parts = (
        event.customer, event.event, event.feature, amounts, event.subject, event.tags, event.model,
        event.provider, event.tokens, event.usage_source.value, event.outcome.value, event.corrects,
    )  # fmt: skip
    return _deterministic(parts)


@dataclass(frozen=True, slots=True)
class Debit:
    """What one event takes from one counter without a lease; negative where it gives back."""

    limit: Limit
    scope_value: str
    window: Window
    amount: int
    cause: str


def debits(
    limits: tuple[Limit, ...],
    event: UsageEvent,
    paid: Mapping[tuple[str, str], int],
    windows: Set[tuple[str, str, int]],
    at_ms: int,
    by: Calendar,
) -> list[Debit]:
    """What no lease of a counter paid, for every counter that the event touches.

    An event near the end of a window may have been paid by a lease of the window before. It then counts there, and
    its own window's counter is named with nothing to debit: it must exist before the event is added to the sums that
    new counters start from, or it would be counted in both.

    Args:
        paid: what leases paid, by counter and scope value.
        windows: the windows that those leases belong to, as counter, scope value, start.
        at_ms: when the event counts; by: the customer's calendar.
    """
    found = []
    for limit in limits_on_path(limits, event.feature, event.amounts, event.subject.role):
        if not limit.is_counted:
            continue
        whose = scope_value(limit, event.subject, event.tags)
        rest = event.amounts[limit.meter] - paid.get((limit.counter, whose), 0)
        if event.corrects is None:
            rest = max(0, rest)
        window = limit.window_at(at_ms, by)
        if rest or (limit.counter, whose, window.start_ms) not in windows:
            cause = "uncharged" if event.corrects is None else "correction"
            found.append(Debit(limit, whose, window, rest, cause))
    return found
