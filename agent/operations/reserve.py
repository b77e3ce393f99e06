"""Hold what a call in flight may use, on every limit on its path, or on none."""

from __future__ import annotations

from agent.core import answers
from agent.core.books import RESERVATIONS_MAX, Books
from agent.core.decide import Path, look_along
from agent.core.demand import asks_ahead
from agent.core.derived import as_said, with_most
from agent.core.lacking import Step
from agent.core.reservations import Line, Reservation
from agent.operations.admit import BATCH, Admitted, admit, seek_lease
from protocol import decisions
from protocol.admission import Estimate
from protocol.decisions import Decision
from protocol.entitlements import limits_on_path
from protocol.local_messages import Call, ErrorReply, Problem, Reserve
from protocol.units import normalise


def reserve(books: Books, request: Reserve, now_ms: int, until_ms: int) -> Decision | ErrorReply | None:
    """The decision, or ``None`` while it waits. Repeating a request changes nothing and gives the same hold again."""
    meters = normalise(request.amounts, {})
    known = books.reservations.get(request.reservation)
    if known is not None:
        return _again(books, known, request, meters, now_ms)
    ended = books.ended.get(request.reservation)
    if ended is not None:
        text = f"reservation {request.reservation!r} has ended already; use a new id for a new call"
        return ErrorReply(error=Problem("reservation_ended", text, "reservation"))
    if len(books.reservations) >= RESERVATIONS_MAX:
        text = f"{RESERVATIONS_MAX} calls are in flight on this host already; settle or release some"
        return ErrorReply(error=Problem("overloaded", text), retry=True)
    wanted = _wanted(books, request, meters) if request.estimates else meters
    outcome = admit(books, request.call, wanted, now_ms, until_ms, priority=request.priority)
    if not isinstance(outcome, Admitted):
        return outcome
    amounts, batch = outcome.meters, request.priority is BATCH
    held = Reservation(
        request.reservation,
        request.call,
        meters,
        amounts,
        [take(books, step, amounts[step.meter], now_ms, batch) for step in outcome.path.steps],
        now_ms + request.ttl_ms,
        outcome.entitlement.version,
        now_ms,
        card=outcome.customer.card,
    )
    books.reservations.put(held)
    books.pending.opened[held.id] = held
    books.wake_tick()
    books.counters.reserved += 1
    return _answer(books, held, outcome.path, request.call, now_ms, breakdown=request.breakdown)


def _wanted(books: Books, request: Reserve, meters: dict[str, int]) -> dict[str, int]:
    """What must fit, as the limit on the path says that wants most, and as far as the caller has said it. While nobody
    here knows the customer, the least: the call waits, and is looked at again once its limits are known."""
    call, customer = request.call, books.customers.get(request.call.customer)
    if customer is None or customer.entitlement is None:
        return meters
    counted = with_most(customer.card.choose(call.feature, call.model), meters)
    limits = limits_on_path(customer.entitlement.limits, call.feature, counted, call.subject.role)
    order = list(Estimate)
    most = max((order.index(limit.estimate) for limit in limits if limit.amount is not None), default=0)
    said = [estimate for estimate in order[: most + 1] if estimate in request.estimates]
    return normalise(request.estimates[said[-1]], {}) if said else meters


def take(books: Books, step: Step, amount: int, now_ms: int, batch: bool = False) -> Line:
    """Hold ``amount`` of one allowance that has room for it, and ask ahead when little is left."""
    allowance = step.allowance
    line = Line(step.meter, allowance.key)
    if amount:
        line.holds = allowance.take(amount, now_ms, drain=step.drain)
        allowance.note_demand(amount, now_ms)
        if allowance.asks_early and asks_ahead(allowance, now_ms, books.round_trip_ms):
            seek_lease(books, allowance, 0, now_ms, batch=batch)
    return line


def _answer(books: Books, held: Reservation, path: Path, call: Call, now_ms: int, *, breakdown: bool) -> Decision:
    entitlement = books.customers[call.customer].entitlement
    assert entitlement is not None
    return answers.allowed(
        entitlement,
        path,
        call.feature,
        now_ms,
        max(0, now_ms - books.confirmed_at_ms),
        reservation=as_answered(held, now_ms),
        breakdown=breakdown,
        meters=held.amounts,
    )


def as_answered(held: Reservation, now_ms: int) -> decisions.Reservation:
    """What its caller is told of it: the meters that a caller may say, so that they can be said back."""
    amounts = as_said(held.card, held.call, held.amounts) if held.card.rates else held.amounts
    return decisions.Reservation(held.id, held.expires_at_ms - now_ms, amounts)


def _again(
    books: Books, known: Reservation, request: Reserve, meters: dict[str, int], now_ms: int
) -> Decision | ErrorReply:
    if known.call != request.call or known.asked != meters:
        text = f"reservation {request.reservation!r} is held by another call; use a new id for each call"
        return ErrorReply(error=Problem("reservation_conflict", text, "reservation"))
    customer = books.customers[known.call.customer]
    path = look_along(books.path(customer, known.call, known.amounts, now_ms), now_ms)
    return _answer(books, known, path, known.call, now_ms, breakdown=request.breakdown)
