"""Hold more for a call in flight: a stream takes its next slice of output. Local, like every decision."""

from __future__ import annotations

from agent.core import answers
from agent.core.books import Books
from agent.core.decide import Path, look_along
from agent.core.derived import as_said, with_most
from agent.core.reservations import Line, Reservation
from agent.operations.admit import Admitted, admit
from agent.operations.reserve import as_answered, take
from protocol.decisions import Decision
from protocol.local_messages import ErrorReply, Extend, Problem
from protocol.units import METERS_MAX
from protocol.violations import Violation


def extend(books: Books, request: Extend, now_ms: int, until_ms: int) -> Decision | ErrorReply | None:
    """Hold so that ``request.amounts`` are held in all; what was held before stays held even when this is refused."""
    held = books.reservations.get(request.reservation)
    if held is None:
        if books.ended.get(request.reservation) is not None:
            text = f"reservation {request.reservation!r} has ended already"
            return ErrorReply(error=Problem("reservation_ended", text, "reservation"))
        text = f"no reservation {request.reservation!r} is held here; reserve first"
        return ErrorReply(error=Problem("reservation_not_found", text, "reservation"))
    totals = _totals(held, request.amounts)
    more = {
        meter: amount - held.amounts.get(meter, 0)
        for meter, amount in totals.items()
        if meter in request.amounts or amount > held.amounts.get(meter, 0)
    }
    outcome = admit(books, held.call, more, now_ms, until_ms, totals=totals)
    if not isinstance(outcome, Admitted):
        return outcome
    for step in outcome.path.steps:
        line = take(books, step, more[step.meter], now_ms)
        lack = more[step.meter] - sum(part for _, part in line.holds)
        if lack and step.allowance.finishing is not None:
            line.holds += step.allowance.finishing.take(lack, now_ms, drain=step.drain)
        if line.holds:
            _add(held, line)
    held.amounts = totals
    books.reservations.prolong(held, now_ms + request.ttl_ms)
    if held.id not in books.pending.opened:  # else it keeps its place: a stream that is fed often must get its row, too
        held.opened_at_ms = now_ms
        books.pending.opened[held.id] = held
        books.wake_tick()
    return answers.allowed(
        outcome.entitlement,
        _whole_path(books, held, now_ms),
        held.call.feature,
        now_ms,
        max(0, now_ms - books.confirmed_at_ms),
        reservation=as_answered(held, now_ms),
        breakdown=False,
        meters=totals,
    )


def _totals(held: Reservation, wanted: dict[str, int]) -> dict[str, int]:
    """What is held in all once ``wanted`` is held too; derived meters are made of the whole, so that they are rounded
    up once.

    Raises:
        Violation: more meters than a call may have, or a derived one is asked for.
    """
    said = as_said(held.card, held.call, held.amounts)
    totals = {**said, **{meter: max(total, said.get(meter, 0)) for meter, total in wanted.items()}}
    if len(totals) > METERS_MAX:
        raise Violation("amounts", f"make {len(totals)} meters with those held already", f"at most {METERS_MAX}")
    return with_most(held.card.choose(held.call.feature, held.call.model), totals)


def _whole_path(books: Books, held: Reservation, now_ms: int) -> Path:
    path = books.path(books.customers[held.call.customer], held.call, held.amounts, now_ms)
    return look_along(path, now_ms)


def _add(held: Reservation, more: Line) -> None:
    for line in held.lines:
        if line.allowance == more.allowance and line.meter == more.meter:
            line.holds.extend(more.holds)
            return
    held.lines.append(more)
