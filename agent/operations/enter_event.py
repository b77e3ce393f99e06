"""Put a usage event on its way to the disk, with what it charges; shared by settle, record and expire."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import msgspec

from agent.core.books import Books, Customer
from agent.core.derived import as_counted, choice_of
from agent.core.leases import AllowanceKey, Lease
from agent.core.pending import Notify, PendingEvent
from agent.core.rates import RateAllowance
from agent.core.reservations import Ended, Reservation, Said
from protocol.events import Charge, UsageEvent
from protocol.local_messages import Call, ErrorReply, Problem, Recorded
from protocol.units import METERS_MAX
from protocol.violations import Violation

CORRECTIONS_MAX = 100
"""How often one call may be corrected: each is remembered, so that a repeat of any of them changes nothing."""


class AfterCommit(msgspec.Struct, frozen=True, gc=False):
    """The reply, to be sent once it is true: whoever joins ``waiters`` is told whether the commit succeeded."""

    reply: Recorded
    waiters: list[Notify]


Charges = list[tuple[Lease, int, bool]]
"""Which lease pays how much, and whether that was orphaned by a crash."""


def charge_lines(books: Books, held: Reservation, amounts: Mapping[str, int]) -> Charges:
    """End the holds of a reservation: what was used is settled on the leases that held it, the rest is free again
    (where the call has a row in the journal: once that is gone)."""
    charges: Charges = []
    journaled = held.journaled
    for line in held.lines:
        left = amounts.get(line.meter, 0)
        for lease, hold in line.holds:
            part = lease.end_hold(hold, left, journaled)
            if part:
                charges.append((lease, part, False))
            left = left - hold if left > hold else 0
            if lease.central and lease.held == 0:
                lease.closing = True
            if lease.closing:
                lease.lower(0)  # told only once the disk says so too
            books.pending.touch(lease)
    customer = books.customers.get(held.call.customer)
    if customer is not None and customer.parked:
        books.freed.add(customer.name)
    return charges


def charge_rest(books: Books, call: Call, amounts: dict[str, int], charged: Charges, now_ms: int) -> Charges:
    """Settle what no hold covered, on every limit on the path that sums up use and has room here.

    What finds no room stays uncharged in the event; the control plane debits it directly.
    """
    customer = books.customers.get(call.customer)
    if customer is None or customer.entitlement is None:
        return []
    covered: dict[AllowanceKey, int] = {}
    for lease, part, _ in charged:
        covered[lease.key] = covered.get(lease.key, 0) + part
    more: Charges = []
    for step in books.path(customer, call, amounts, now_ms).steps:
        rest = amounts[step.meter] - covered.get(step.allowance.key, 0)
        if rest > 0 and step.counted:
            charges = step.allowance.charge(rest, now_ms)
            rest -= sum(part for _, part, _ in charges)
            more += charges
            if rest and step.allowance.finishing is not None:
                more += step.allowance.finishing.charge(rest, now_ms)
    for lease, _, _ in more:
        books.pending.touch(lease)
    return more


def overdraw(books: Books, held: Reservation, amounts: Mapping[str, int], now_ms: int) -> None:
    """What a call used beyond what it had taken from rates comes out of their buckets, which then owe it."""
    for line in held.lines:
        rate = books.allowances.get(line.allowance)
        over = amounts.get(line.meter, 0) - sum(hold for _, hold in line.holds)
        if over > 0 and isinstance(rate, RateAllowance):
            rate.charge(over, now_ms)


def draw_on_rates(books: Books, customer: Customer, call: Call, amounts: dict[str, int], now_ms: int) -> None:
    """What has just been used without asking comes out of the buckets of the rates on its path."""
    for step in books.path(customer, call, amounts, now_ms).steps:
        if isinstance(step.allowance, RateAllowance):
            step.allowance.charge(amounts[step.meter], now_ms)


def enter_event(books: Books, key: str, ended: Ended, event: UsageEvent) -> AfterCommit:
    """Queue the event for the next commit group, and remember under ``key`` how the call ended."""
    assert ended.said is not None
    ended.last_event, ended.durable = event.event, False
    books.ended.put(key, ended)
    pending = PendingEvent(event, ended, [])
    books.pending.events.append(pending)
    books.tally.add(event)
    books.pending.urgent = True
    books.wake_writer()
    return AfterCommit(Recorded(event=event.event, amounts=ended.counted, corrects=event.corrects), pending.waiters)


def usage_event(name: str, ended: Ended, charges: Charges, at_ms: int, version: int) -> UsageEvent:
    """The one immutable fact."""
    call, said = ended.call, ended.said
    assert said is not None
    choice = choice_of(ended.card, call, said) if ended.card.rates else None
    return UsageEvent(
        event=name,
        customer=call.customer,
        feature=call.feature,
        at_ms=at_ms,
        amounts=ended.counted,
        subject=call.subject,
        tags=call.tags,
        model=said.model,
        provider=said.provider,
        tokens=said.tokens,
        usage_source=said.usage_source,
        outcome=said.outcome,
        charges=tuple([Charge(lease.id, part, orphan) for lease, part, orphan in charges]),
        version=version,
        derived=choice.meters if choice else (),
        priced=choice.priced if choice else (),
    )


def repeat_or_correct(
    books: Books, key: str, ended: Ended, said: Said, wall_ms: int
) -> Recorded | AfterCommit | ErrorReply:
    """A call that had ended is spoken of again: the same words change nothing, other words are a correction.

    A correction is an event of its own whose amounts are the difference to what was counted so far.

    Raises:
        Violation: the correction would name more meters than an event may.
    """
    assert ended.event is not None
    assert ended.said is not None
    assert ended.last_event is not None
    told = ended.event_of(said)
    if told is not None:
        corrects = None if told == ended.event else ended.event
        counted = as_counted(ended.card, ended.call, said)
        reply = Recorded(event=told, amounts=counted, duplicate=True, corrects=corrects)
        if ended.durable:
            return reply
        books.pending.urgent = True
        books.wake_writer()
        return AfterCommit(reply, books.pending.waiters)
    if len(ended.earlier) >= CORRECTIONS_MAX:
        text = f"{ended.event!r} has been corrected {CORRECTIONS_MAX} times already; record what is left to correct"
        return ErrorReply(error=Problem("reservation_ended", text))
    before, counted = ended.said, as_counted(ended.card, ended.call, said)
    difference = _difference(ended.counted, counted)
    if len(difference) > METERS_MAX:
        problem = f"make {len(difference)} meters with those said before"
        raise Violation("amounts", problem, f"at most {METERS_MAX}; say 0 for none of the others")
    ended.earlier = (*ended.earlier, (before, ended.last_event))
    name = f"{_short(ended.event)}~{len(ended.earlier)}"
    choice = choice_of(ended.card, ended.call, said) if ended.card.rates else None
    event = UsageEvent(
        event=name,
        customer=ended.call.customer,
        feature=ended.call.feature,
        at_ms=wall_ms,
        amounts=difference,
        subject=ended.call.subject,
        tags=ended.call.tags,
        model=said.model,
        provider=said.provider,
        tokens=_difference(before.tokens, said.tokens),
        usage_source=said.usage_source,
        outcome=said.outcome,
        corrects=ended.event,
        derived=choice.meters if choice else (),
        priced=choice.priced if choice else (),
    )
    ended.said, ended.counted = said, counted
    return enter_event(books, key, ended, event)


def _difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after.get(name, 0) - before.get(name, 0) for name in {**before, **after}}


def _short(event: str) -> str:
    """An id that leaves room for a suffix, and is still no other event's."""
    return event if len(event) <= 120 else f"{event[:80]}~{blake2b(event.encode(), digest_size=16).hexdigest()}"


def overloaded() -> ErrorReply:
    """The disk is behind by more than memory may hold."""
    text = "too many events wait for this host's disk; repeat the same request under the same id"
    return ErrorReply(error=Problem("overloaded", text), retry=True)
