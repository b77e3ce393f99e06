"""Calls in flight whose life is over and whose caller said nothing: charged at what they held, and marked so, unless
the plan says otherwise.

The provider may have billed all of it; nobody can tell. A settle that comes later is a correction of this.
"""

from __future__ import annotations

from agent.core.books import Books
from agent.core.derived import as_said
from agent.core.reservations import Said
from agent.core.unfinished import as_charged
from agent.operations.settle import conclude, policy_of
from protocol.events import Outcome, UsageSource


def expire(books: Books, now_ms: int, wall_ms: int) -> int:
    """End every reservation whose life is over; how many that were."""
    over = books.reservations.expired(now_ms)
    for held in over:
        said = Said(
            as_said(held.card, held.call, held.amounts),
            {},
            UsageSource.ESTIMATED,
            Outcome.EXPIRED,
            held.call.model,
            None,
        )
        said = as_charged(policy_of(books, held.call.customer), said)
        conclude(books, held.id, held, held.call, said, now_ms, wall_ms)
    books.counters.expired += len(over)
    return len(over)
