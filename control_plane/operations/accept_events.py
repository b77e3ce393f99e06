"""Takes usage events into the ledger, exactly once, and finds out what no lease paid for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from zlib import crc32

import msgspec

from control_plane.core import reconciliation
from control_plane.operations.burn_credits import Used
from control_plane.operations.exchange import Exchange
from control_plane.operations.keep_for_review import compare_marks, contradicts
from control_plane.operations.register_start import know_boot
from control_plane.operations.sum_events import add_to_sums
from control_plane.store import agents, events, rollups
from control_plane.store.allowances import Key
from protocol.codec import MsgpackDecoder
from protocol.events import EventBatch, UsageEvent
from protocol.uplink_messages import EventProblem, HighWater
from protocol.violations import Violation

_array = MsgpackDecoder(list[msgspec.Raw])
_event = MsgpackDecoder(UsageEvent)

SAYINGS = {
    "corrupt": "the batch fails its checksum; send it again as it is on the disk",
    "duplicate": "it was accepted before, with the same content; nothing was counted twice",
    "conflict": "another event was accepted under this id; only the first is in the usage; this one is kept for people "
    "to look at, and what its leases paid stays charged",
    "unknown_customer": "nobody knows this customer; the event is kept",
    "undecodable": "it cannot be read; it is kept",
    "negative": "amounts are negative in an event that corrects nothing; it is kept",
}


@dataclass(frozen=True, slots=True)
class Incoming:
    """One event as it came in, with its digest and the instant at which it counts."""

    boot: int
    seq: int
    body: bytes
    event: UsageEvent
    digest: bytes
    at_ms: int

    @property
    def identity(self) -> tuple[str, str]:
        """(customer, event)."""
        return (self.event.customer, self.event.event)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An event, or a whole batch, that means nothing to us."""

    boot: int
    seq: int
    body: bytes
    code: str


@dataclass(frozen=True, slots=True)
class Owed:
    """What an event moves on an allowance without a lease."""

    key: Key
    amount: int
    cause: str
    event: str
    lease: str | None = None


@dataclass(slots=True)
class Reading:
    """What the batches of one request hold that is new.

    Attributes:
        marks: up to where each boot's events are now read.
        contradiction: why this journal cannot be one honest disk: it says other things under numbers that it has used.
    """

    incoming: list[Incoming] = field(default_factory=list)
    counted: list[Incoming] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    marks: dict[int, int] = field(default_factory=dict)
    owed: list[Owed] = field(default_factory=list)
    sums: rollups.Sums = field(default_factory=dict)
    kept: list[events.Conflict] = field(default_factory=list)
    contradiction: str = ""

    def used_of(self, key: Key, meter: str) -> list[Used]:
        """What new events used of a customer's balance."""
        return [
            Used(item.event.event, item.event.amounts[meter], item.at_ms)
            for item in self.counted
            if item.event.customer == key.customer and meter in item.event.amounts
        ]

    @property
    def customers(self) -> set[str]:
        """Whose events these are."""
        return {item.event.customer for item in self.incoming}

    @property
    def leases(self) -> Iterable[str]:
        """Which leases paid for them."""
        return (charge.lease for item in self.incoming for charge in item.event.charges)


def read_batches(exchange: Exchange) -> Reading:
    """Decode what is new. Batches that fail their checksum or follow a gap are left for the agent to send again."""
    reading = Reading()
    if exchange.answer.show:  # which leases paid is to be known first; the agent sends these again
        return reading
    compare_marks(exchange, reading.marks, reading.kept)
    for batch in exchange.batches:
        start = know_boot(
            exchange.connection,
            exchange.agent,
            exchange.request.journal,
            batch.boot,
            exchange.starts,
            exchange.now_ms,
        )
        high_water = reading.marks.setdefault(batch.boot, start.high_water)
        if crc32(batch.body) != batch.crc32:
            exchange.note("corrupt_batch", f"boot {batch.boot}: events from {batch.first}")
            problem = EventProblem(batch.boot, batch.first, "", "corrupt", SAYINGS["corrupt"])
            exchange.answer.event_problems.append(problem)
            continue
        known = reconciliation.new_part(high_water, batch.first, batch.count)
        if known and (contradiction := contradicts(exchange, batch, known)):
            reading.contradiction = contradiction
            continue
        if known is None:
            exchange.note("sequence_gap", f"boot {batch.boot}: {batch.first} comes after {high_water}")
        if known is None or known == batch.count:
            continue
        _read(reading, batch, known, exchange.now_ms)
        reading.marks[batch.boot] = batch.first + batch.count - 1
    return reading


def _read(reading: Reading, batch: EventBatch, known: int, now_ms: int) -> None:
    try:
        bodies = [bytes(raw) for raw in _array(batch.body)]
    except Violation:
        bodies = []
    if len(bodies) != batch.count:
        reading.unreadable.append(Unreadable(batch.boot, batch.first + known, batch.body, "undecodable"))
        return
    for at, body in enumerate(bodies[known:], start=known):
        seq = batch.first + at
        try:
            event = _event(body)
        except Violation:
            reading.unreadable.append(Unreadable(batch.boot, seq, body, "undecodable"))
            continue
        if event.corrects is None and any(amount < 0 for amount in event.amounts.values()):
            reading.unreadable.append(Unreadable(batch.boot, seq, body, "negative"))
            continue
        counts_at_ms = reconciliation.counted_at_ms(event.at_ms, now_ms)
        incoming = Incoming(batch.boot, seq, body, event, reconciliation.digest(event), counts_at_ms)
        reading.incoming.append(incoming)


def accept_events(exchange: Exchange, reading: Reading) -> None:
    """Store what is new, tell what is not, and note on the exchange which allowances will be touched."""
    first: dict[tuple[str, str], Incoming] = {}
    strangers: list[Incoming] = []
    again: list[Incoming] = []
    for item in reading.incoming:
        if item.event.customer not in exchange.entitlements:
            strangers.append(item)
        elif first.setdefault(item.identity, item) is not item:
            again.append(item)
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
    for owed in reading.owed:
        exchange.windows.setdefault(owed.key, 0)
    starts = exchange.starts
    marks = {boot: seq for boot, seq in reading.marks.items() if boot in starts and seq > starts[boot].high_water}
    agents.raise_high_water(exchange.connection, exchange.agent, exchange.request.journal, marks)
    exchange.answer.high_water = [HighWater(boot, seq) for boot, seq in sorted(reading.marks.items())]


def book_events(exchange: Exchange, reading: Reading) -> None:
    """Debit what no lease paid; the allowances must be held."""
    for owed in reading.owed:
        if owed.amount:
            exchange.books.debit(owed.key, owed.amount, owed.cause, owed.event, owed.lease)


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
    limits = exchange.entitlements[event.customer].limits + exchange.held.shadow.get(event.customer, ())
    by = exchange.calendar(event.customer)
    for debit in reconciliation.debits(limits, event, paid, windows, item.at_ms, by):
        key = Key(event.customer, debit.limit.counter, debit.scope_value, debit.window.start_ms)
        exchange.touch(key, debit.window.end_ms)
        reading.owed.append(Owed(key, debit.amount, debit.cause, event.event))
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
