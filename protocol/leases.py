"""Leases on the wire: a slice of an allowance lent to one agent for a while, and what the agent says of it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from protocol.ids import Key
from protocol.instants import DurationMs, InstantMs
from protocol.units import Quantity

Counter = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
ScopeValue = Annotated[str, msgspec.Meta(max_length=128)]


class Standing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an allowance stands beyond what this agent holds; only for showing people what remains.

    Attributes:
        amount: the limit now.
        elsewhere: used so far as the control plane knows, without what is used on this agent's open leases.
    """

    amount: Quantity
    elsewhere: Quantity


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new lease. It never grows; more is another lease.

    Attributes:
        lease: chosen by the agent when it asked, so that asking twice grants once.
        amount: how much may be used.
        ttl_ms: its term, counted from the moment the agent asked.
        window_start_ms, window_end_ms: the window it belongs to, for display and for the ledger.
        window_left_ms: how long that window still lasts, counted from the moment the agent asked.
        central: covers only what was asked for; to be returned as soon as the call has settled.
        overage: how much of ``amount`` lies beyond the limit, by the plan's choice.
        starts_in_ms: of a window that is yet to begin: when it does, counted from the moment the agent asked.
        finishing: only for calls in flight that go on beyond the limit.
        per_ms: of a smooth limit: ``amount`` may be used every so many milliseconds, evenly; 0 for all others.
        burst, level: of a smooth limit: how much may be saved up, and how much of that is there to begin with.
        seal: the control plane's signature, by which a database restored to an older state knows its own grants again.
    """

    lease: Key
    customer: Key
    counter: Counter
    scope_value: ScopeValue
    amount: Quantity
    ttl_ms: DurationMs
    window_start_ms: InstantMs
    window_end_ms: InstantMs
    window_left_ms: DurationMs
    standing: Standing
    central: bool = False
    overage: Quantity = 0
    starts_in_ms: DurationMs = 0
    finishing: bool = False
    per_ms: DurationMs = 0
    burst: Quantity = 0
    level: Quantity = 0
    seal: Annotated[bytes, msgspec.Meta(max_length=64)] = b""


class LeaseReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the holder says of a lease. Only durable numbers are reported; all are cumulative or monotone.

    Attributes:
        cap: what the holder may still use up to: it only ever falls (a return), merged by minimum.
        settled: what events already written to the journal charged to this lease, merged by maximum.
        in_flight: what calls in flight hold now; only informative, the last word wins.
        unreported: what may have been used although no event says so (a crash between use and settle).
        closed: the holder is done with it: charge ``settled + unreported`` and give back the rest.
        level: of a smooth limit, once closed: what was saved up and not used.
    """

    lease: Key
    cap: Quantity
    settled: Quantity
    in_flight: Quantity = 0
    unreported: Quantity = 0
    closed: bool = False
    level: Quantity = 0


class Denial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why an ask was not granted.

    Attributes:
        lease: the id the agent had chosen for the lease it asked for.
        exhausted: truly used up; otherwise the rest is lent elsewhere and may come back (``retry_in_ms``).
        window_left_ms: until the window ends, counted from the moment the agent asked.
    """

    lease: Key
    customer: Key
    counter: Counter
    scope_value: ScopeValue
    exhausted: bool
    version: int
    retry_in_ms: DurationMs
    window_start_ms: InstantMs
    window_end_ms: InstantMs
    window_left_ms: DurationMs
    standing: Standing


class Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lease goes on: a new term, counted from the moment the agent asked. The amount never changes."""

    lease: Key
    ttl_ms: DurationMs
    standing: Standing


class Recall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Please give back all of this lease but what is used, what calls in flight hold, and ``keep`` more."""

    lease: Key
    keep: Quantity = 0


def burst_left(granted: int, burst: int, cap: int) -> int:
    """How much may still be saved up on a smooth lease whose share was lowered from ``granted`` to ``cap``.

    Both sides compute it, so that the bursts of all leases and what is left to lend always add up.
    """
    return -(-burst * min(cap, granted) // granted) if granted else 0
