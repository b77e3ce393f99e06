"""Takes usage events into the ledger, exactly once, and finds out what no lease paid for."""

from __future__ import annotations

from dataclasses import replace

from control_plane.core import reconciliation
from control_plane.operations.count_shadow import Shadow
from control_plane.operations.exchange import Exchange
from control_plane.operations.read_batches import SAYINGS, Incoming, Owed, Reading, Unreadable
from control_plane.operations.sum_events import add_to_sums
from control_plane.store import agents, events, periods
from control_plane.store.allowances import Key
from control_plane.store.periods import Adjustment
from protocol.events import UsageEvent
from protocol.uplink_messages import EventProblem, HighWater


def accept_events(exchange: Exchange, reading: Reading) -> None:
    """Store what is new, tell what is not, and note on the exchange which allowances will be touched."""
    first: dict[tuple[str, str], Incoming] = {}
    strangers: list[Incoming] = []
    again: list[Incoming] = []
    for came in reading.incoming:
        item = _beyond_closed_periods(exchange, came)
        if item.event.customer not in exchange.entitlements:
            strangers.append(item)
        elif first.setdefault(item.identity, item) is not item:
            again.append(item)
    again += _set_late_aside(exchange, reading, first)
    added = events.add_new(exchange.connection, [_row(exchange, item) for item in first.values()])
    again += [item for identity, item in first.items() if identity not in added]
    _judge_repetitions(exchange, reading, again, {name: first[name].digest for name in added})
    for item in strangers:
        _keep(exchange, reading, item, "unknown_customer")
    for lost in reading.unreadable:
        _keep(exchange, reading, lost, lost.code)
    events.keep_conflicts(exchange.connection, reading.kept)
    for identity, item in first.items():
        if identity in added:
            _count(exchange, reading, item)
    moved = [first[name] for name in sorted(added) if first[name].own_ms is not None]
    periods.adjust(exchange.connection, [_adjustment(exchange, item) for item in moved])
    for owed in reading.owed:
        exchange.windows.setdefault(owed.key, 0)
    starts = exchange.starts
    marks = {boot: seq for boot, seq in reading.marks.items() if boot in starts and seq > starts[boot].high_water}
    agents.raise_high_water(exchange.connection, exchange.agent, exchange.request.journal, marks)
    exchange.answer.high_water = [HighWater(boot, seq) for boot, seq in sorted(reading.marks.items())]


def _beyond_closed_periods(exchange: Exchange, item: Incoming) -> Incoming:
    """What happened in a billing period that is closed counts at the beginning of the next."""
    at_ms = reconciliation.counts_from(item.at_ms, exchange.held.closed_until.get(item.event.customer, 0))
    return item if at_ms == item.at_ms else replace(item, at_ms=at_ms, own_ms=item.at_ms)


def _adjustment(exchange: Exchange, item: Incoming) -> Adjustment:
    event = item.event
    return Adjustment(event.customer, event.event, item.own_ms or 0, item.at_ms, exchange.now_ms, event.amounts)


def _set_late_aside(exchange: Exchange, reading: Reading, first: dict[tuple[str, str], Incoming]) -> list[Incoming]:
    """Take what is too old to count out of ``first``, and keep it; what was accepted in its time is a repetition."""
    late = {identity: item for identity, item in first.items() if item.late}
    known = events.digests(exchange.connection, late) if late else {}
    for identity, item in late.items():
        del first[identity]
        if identity not in known:
            _keep(exchange, reading, item, "late")
    return [late[identity] for identity in sorted(known)]


def book_events(exchange: Exchange, reading: Reading) -> None:
    """Debit what no lease paid; the allowances must be held."""
    shadow = Shadow()
    for owed in reading.owed:
        if owed.shadow is not None and owed.amount > 0:
            account = exchange.books.accounts[owed.key]
            shadow.look(account, owed.shadow, owed.amount, owed.at_ms, owed.window_end_ms)
        if owed.amount:
            exchange.books.debit(owed.key, owed.amount, owed.cause, owed.event, owed.lease)
    shadow.save(exchange.connection)


def _row(exchange: Exchange, item: Incoming) -> events.Row:
    return events.Row(
        customer=item.event.customer,
        event=item.event.event,
        journal=exchange.request.journal,
        boot=item.boot,
        seq=item.seq,
        agent=exchange.agent,
        feature=item.event.feature,
        at_ms=item.at_ms,
        received_at_ms=exchange.now_ms,
        digest=item.digest,
        body=item.body,
        corrects=item.event.corrects,
    )


def _judge_repetitions(
    exchange: Exchange, reading: Reading, again: list[Incoming], winners: dict[tuple[str, str], bytes]
) -> None:
    """The same words again are a duplicate: its leases have paid a second time, which is given back. Other words are a
    conflict: a second call probably happened under the same id, so what its leases paid for it stays charged."""
    if not again:
        return
    stored = events.digests(exchange.connection, [item.identity for item in again if item.identity not in winners])
    for item in again:
        if {**stored, **winners}.get(item.identity) == item.digest:
            _tell(exchange, item.boot, item.seq, item.event.event, "duplicate")
            _give_back(exchange, reading, item.event)
        else:
            _keep(exchange, reading, item, "conflict")


def _give_back(exchange: Exchange, reading: Reading, event: UsageEvent) -> None:
    """Its leases have paid twice; but what a crash had orphaned was used by somebody, if not by this event."""
    for charge in event.charges:
        row = exchange.payers.get(charge.lease)
        if row is not None and row.customer == event.customer and charge.amount and not charge.orphan:
            reading.owed.append(Owed(row.key, -min(charge.amount, row.granted), "duplicate", event.event, row.lease))


def _count(exchange: Exchange, reading: Reading, item: Incoming) -> None:
    """Add an accepted event to the sums, and find out what no lease paid of it."""
    event = item.event
    reading.counted.append(item)
    paid: dict[tuple[str, str], int] = {}
    windows: set[tuple[str, str, int]] = set()
    for charge in event.charges:
        row = exchange.payers.get(charge.lease)
        if row is not None and row.customer == event.customer:
            place = (row.counter, row.scope_value)
            paid[place] = paid.get(place, 0) + min(charge.amount, row.granted)
            windows.add((*place, row.window_start_ms))
    shadow = exchange.held.shadow.get(event.customer, ())
    limits = exchange.entitlements[event.customer].limits + shadow
    by = exchange.calendar(event.customer)
    for debit in reconciliation.debits(limits, event, paid, windows, item.at_ms, by):
        key = Key(event.customer, debit.limit.counter, debit.scope_value, debit.window.start_ms)
        exchange.touch(key, debit.window.end_ms)
        hidden = debit.limit if event.corrects is None and debit.limit in shadow else None
        reading.owed.append(
            Owed(key, debit.amount, debit.cause, event.event, None, hidden, item.at_ms, debit.window.end_ms)
        )
    add_to_sums(reading.sums, event, item.at_ms)
    if any(not priced.known for priced in event.priced):
        exchange.note("unpriced_model", f"{event.customer}: event {event.event} of model {event.model}")


def _keep(exchange: Exchange, reading: Reading, item: Incoming | Unreadable, code: str) -> None:
    customer, event = item.identity if isinstance(item, Incoming) else ("", "")
    journal = exchange.request.journal
    reading.kept.append(
        events.Conflict(customer, event, exchange.agent, journal, item.boot, item.seq, code, item.body, exchange.now_ms)
    )
    _tell(exchange, item.boot, item.seq, event, code)


def _tell(exchange: Exchange, boot: int, seq: int, event: str, code: str) -> None:
    exchange.answer.event_problems.append(EventProblem(boot, seq, event, code, SAYINGS[code]))
