"""Reads the batches of usage events that a sync brings, as far as they are new."""

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
from control_plane.store import events, rollups
from control_plane.store.allowances import Key
from protocol.codec import MsgpackDecoder
from protocol.entitlements import Limit
from protocol.events import EventBatch, UsageEvent
from protocol.uplink_messages import EventProblem
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
    "late": "it is older than events may be to count; it is kept, and can be entered by hand at a later instant",
    "negative": "amounts are negative in an event that corrects nothing; it is kept",
}


@dataclass(frozen=True, slots=True)
class Incoming:
    """One event as it came in, with its digest and the instant at which it counts; ``late``: it is too old to;
    ``own_ms``: when it happened, if its billing period is closed, so that it counts later."""

    boot: int
    seq: int
    body: bytes
    event: UsageEvent
    digest: bytes
    at_ms: int
    late: bool = False
    own_ms: int | None = None

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
    """What an event moves on an allowance without a lease.

    Attributes:
        shadow: the limit, where it refuses nothing. at_ms: when the event counts. window_end_ms: of the allowance.
    """

    key: Key
    amount: int
    cause: str
    event: str
    lease: str | None = None
    shadow: Limit | None = None
    at_ms: int = 0
    window_end_ms: int = 0


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
        _read(reading, batch, known, exchange)
        reading.marks[batch.boot] = batch.first + batch.count - 1
    return reading


def _read(reading: Reading, batch: EventBatch, known: int, exchange: Exchange) -> None:
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
        if event.corrects is None and min((*event.amounts.values(), *event.tokens.values()), default=0) < 0:
            reading.unreadable.append(Unreadable(batch.boot, seq, body, "negative"))
            continue
        now_ms = exchange.now_ms
        counts_at_ms = reconciliation.counted_at_ms(event.at_ms, now_ms)
        late = reconciliation.is_late(event.at_ms, now_ms, exchange.trust.generation.grace_ms)
        incoming = Incoming(batch.boot, seq, body, event, reconciliation.digest(event), counts_at_ms, late)
        reading.incoming.append(incoming)
