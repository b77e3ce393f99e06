"""May this call go ahead? Holds nothing."""

from __future__ import annotations

from agent.core import answers
from agent.core.books import Books
from agent.operations.admit import Admitted, admit
from protocol.decisions import Decision
from protocol.local_messages import Check
from protocol.units import normalise


def check(books: Books, request: Check, now_ms: int, until_ms: int) -> Decision | None:
    """The decision, or ``None`` while it waits for a first lease."""
    meters = normalise(request.amounts, {})
    outcome = admit(books, request.call, meters, now_ms, until_ms, priority=request.priority)
    if not isinstance(outcome, Admitted):
        return outcome
    return answers.allowed(
        outcome.entitlement,
        outcome.path,
        request.call.feature,
        now_ms,
        max(0, now_ms - books.confirmed_at_ms),
        reservation=None,
        breakdown=request.breakdown,
        meters=outcome.meters,
    )
