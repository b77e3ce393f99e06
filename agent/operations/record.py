"""Usage that nobody had reserved. It is counted whether or not it fits: it has already happened."""

from __future__ import annotations

from agent.core.books import Books
from agent.core.derived import as_counted
from agent.core.reservations import Ended, Said
from agent.operations.admit import require_known_meters
from agent.operations.enter_event import (
    AfterCommit,
    charge_rest,
    draw_on_rates,
    enter_event,
    overloaded,
    repeat_or_correct,
    usage_event,
)
from protocol.local_messages import ErrorReply, Problem, Record, Recorded
from protocol.units import normalise


def record(
    books: Books, request: Record, now_ms: int, wall_ms: int, until_ms: int
) -> Recorded | AfterCommit | ErrorReply | None:
    """Take the event in; a customer seen here for the first time is looked up first, while there is time.

    When the control plane cannot be asked, the event is taken in all the same: it decides about it later. What happened
    some time ago (``at_ms``) is no use of a rate now, and nothing that was not reserved was ever held at once.
    """
    if books.pending.full:
        return overloaded()
    call = request.call
    amounts = normalise(request.amounts, request.tokens)
    said = Said(amounts, request.tokens, request.usage_source, request.outcome, call.model, request.provider)
    key = f"{call.customer}/{request.event}"
    known = books.customers.get(call.customer)
    if known is not None:
        require_known_meters(known, amounts)  # of corrections, too
    settled = books.ended.get(request.event)
    if settled is not None and settled.event == request.event and settled.call.customer == call.customer:
        return repeat_or_correct(
            books, request.event, settled, said, wall_ms
        )  # reservations and events share their ids
    ended = books.ended.get(key)
    if ended is not None:
        return repeat_or_correct(books, key, ended, said, wall_ms)
    if books.crowded_for(call.customer):
        return overloaded()
    customer = books.customer(call.customer)
    customer.last_used_ms = now_ms
    if customer.entitlement is None:
        if customer.unknown_until_ms > now_ms:
            text = f"there is no customer {call.customer!r}; create it in the control plane, then repeat this request"
            return ErrorReply(error=Problem("customer_not_found", text, "call.customer"), retry=False)
        if now_ms < until_ms and not books.uplink_down and not books.refusing:
            books.look_again.add(call.customer)
            books.wake_sync()
            return None
    counted = as_counted(customer.card, call, said)
    charges = charge_rest(books, call, counted, [], now_ms)
    if request.at_ms is None and customer.entitlement is not None:
        draw_on_rates(books, customer, call, counted, now_ms)
    version = customer.entitlement.version if customer.entitlement else 0
    ended = Ended(request.event, said, call, card=customer.card, counted=counted)
    event = usage_event(request.event, ended, charges, wall_ms if request.at_ms is None else request.at_ms, version)
    books.counters.recorded += 1
    return enter_event(books, key, ended, event)
