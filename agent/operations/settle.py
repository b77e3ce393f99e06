"""What a reservation really used: charged to the leases that held it, once, whatever is repeated."""

from __future__ import annotations

from agent.core.books import Books
from agent.core.derived import as_counted
from agent.core.reservations import Ended, Reservation, Said
from agent.core.unfinished import as_charged
from agent.operations.admit import require_known_meters
from agent.operations.enter_event import (
    AfterCommit,
    Charges,
    charge_lines,
    charge_rest,
    enter_event,
    overdraw,
    overloaded,
    repeat_or_correct,
    usage_event,
)
from protocol.events import UnfinishedCalls
from protocol.local_messages import Call, ErrorReply, Problem, Recorded, Settle
from protocol.rates import NO_RATES
from protocol.units import normalise


def settle(books: Books, request: Settle, now_ms: int, wall_ms: int) -> Recorded | AfterCommit | ErrorReply:
    """End the reservation with what it used.

    A reservation that this agent does not know (it crashed before the journal had it, or its life was over long ago)
    is accounted for all the same when the request carries its ``call``.
    """
    if books.pending.full:
        return overloaded()
    amounts = normalise(request.amounts, request.tokens)
    held = books.reservations.get(request.reservation)
    ended = books.ended.get(request.reservation)
    call = held.call if held else ended.call if ended else request.call
    if call is None:
        text = (
            f"no reservation {request.reservation!r} is known here; give `call` so that it can be counted all the same"
        )
        return ErrorReply(error=Problem("reservation_not_found", text, "reservation"))
    if request.call is not None and request.call.customer != call.customer:
        text = f"reservation {request.reservation!r} is a call of another customer; use a new id for each call"
        return ErrorReply(error=Problem("reservation_conflict", text, "reservation"))
    known = books.customers.get(call.customer)
    if known is not None:
        require_known_meters(known, amounts)  # of corrections, too
    model = request.model or call.model
    said = Said(amounts, request.tokens, request.usage_source, request.outcome, model, request.provider)
    said = as_charged(policy_of(books, call.customer), said)
    if held is None and ended is not None and ended.event is not None:
        return repeat_or_correct(books, request.reservation, ended, said, wall_ms)
    if held is None and ended is None:
        recorded = f"{call.customer}/{request.reservation}"  # reservations and events share their ids
        if (known_event := books.ended.get(recorded)) is not None:
            return repeat_or_correct(books, recorded, known_event, said, wall_ms)
    concluded = conclude(books, request.reservation, held, call, said, now_ms, wall_ms)
    books.counters.settled += 1
    return concluded


def conclude(
    books: Books,
    name: str,
    held: Reservation | None,
    call: Call,
    said: Said,
    now_ms: int,
    wall_ms: int,
) -> AfterCommit:
    """End a call: its holds, its event, and the memory of what was said.

    Raises:
        Violation: what is said makes too much of a derived meter, or says one itself; nothing has changed.
    """
    customer = books.customers.get(call.customer)
    entitlement = customer.entitlement if customer else None
    version = entitlement.version if entitlement else 0
    card = held.card if held else customer.card if customer else NO_RATES
    counted = as_counted(card, call, said) if card.rates else said.amounts  # before anything changes: it may refuse
    charges: Charges = []
    if held is None:
        charges = charge_rest(books, call, counted, charges, now_ms)
    else:
        charges = charge_lines(books, held, counted)
        over = not _within(counted, held.amounts)
        if over or held.version != version:
            charges += charge_rest(books, call, counted, charges, now_ms)
        if over:
            overdraw(books, held, counted, now_ms)
        forget_reservation(books, held)
        version = held.version
    ended = Ended(name, said, call, card=card, counted=counted)
    return enter_event(books, name, ended, usage_event(name, ended, charges, wall_ms, version))


def policy_of(books: Books, customer: str) -> UnfinishedCalls:
    """What is charged of the customer's calls that nobody saw to their end."""
    known = books.customers.get(customer)
    entitlement = known.entitlement if known else None
    return entitlement.unfinished_calls if entitlement else UnfinishedCalls.ESTIMATED


def _within(used: dict[str, int], held: dict[str, int]) -> bool:
    """Whether what was held covers all that was used, so that the holds alone pay for it."""
    for meter, amount in used.items():  # noqa: SIM110 - a loop, not a generator: this runs for every settle
        if amount > held.get(meter, 0):
            return False
    return True


def forget_reservation(books: Books, held: Reservation) -> None:
    """It is no longer in flight: neither in memory nor, after the next commit, on disk."""
    books.reservations.pop(held.id)
    books.pending.opened.pop(held.id, None)
    if held.journaled:
        books.pending.ended.append(held.id)
