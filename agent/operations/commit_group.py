"""From what memory gathered to what the journal writes, and back again at the start: the shapes on disk."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import msgspec

from agent.core.kinds import is_rate, new_lease
from agent.core.leases import Lease
from agent.core.pending import Group
from agent.core.rates import RateShare
from agent.core.reservations import Line, Reservation
from agent.store import journal
from protocol.codec import encode_msgpack
from protocol.entitlements import Rate
from protocol.events import BATCH_BYTES_MAX, UsageEvent
from protocol.leases import Grant, Standing
from protocol.local_messages import Call
from protocol.rates import RateCard


class StoredLine(msgspec.Struct, frozen=True, array_like=True):
    """One limit that a call in flight holds on."""

    meter: str
    customer: str
    counter: str
    scope_value: str
    holds: tuple[tuple[str, int], ...]


class StoredReservation(msgspec.Struct, frozen=True):
    """A call in flight, so that its settle is understood after a crash."""

    call: Call
    asked: dict[str, int]
    amounts: dict[str, int]
    lines: tuple[StoredLine, ...]
    expires_at_ms: int
    version: int
    rates: tuple[Rate, ...] = ()
    plan: str = ""


def to_write(group: Group, boot: int, first: int, at_ms: int) -> journal.Write:
    """The rows of one commit group; its events become a checksummed blob, numbered from ``first``."""
    write = journal.Write(
        forgotten=group.forgotten,
        ended=group.ended,
        opened=[(held.id, _reservation_body(held)) for held in group.opened],
        high_water=group.high_water,
    )
    for row in group.rows:
        rows = write.leases if row.lease.written else write.new_leases
        rows.append(
            journal.LeaseRow(
                row.lease.id,
                b"" if row.lease.written else encode_msgpack(as_granted(row.lease)),
                row.cap,
                row.watermark,
                row.settled,
                row.orphan,
                row.closing,
                row.lease.expires_at_ms,
                row.lease.window_ends_at_ms,
            )
        )
    for customer, entitlement in group.entitlements.items():
        if entitlement is None:
            write.dropped.append(customer)
        else:
            write.entitlements.append((customer, encode_msgpack(entitlement)))
    if group.events:
        write.batches = to_batches([pending.event for pending in group.events], boot, first, at_ms)
    return write


def to_batches(events: list[UsageEvent], boot: int, first: int, at_ms: int) -> list[journal.BatchRow]:
    """Events as they lie in the outbox and as they are uploaded: verbatim. Several blobs where one would be too large
    for an upload."""
    body = encode_msgpack(events)
    if len(body) <= BATCH_BYTES_MAX or len(events) == 1:
        return [journal.BatchRow(boot, first, len(events), crc32(body), body, at_ms)]
    half = len(events) // 2
    return [*to_batches(events[:half], boot, first, at_ms), *to_batches(events[half:], boot, first + half, at_ms)]


def from_lease_row(row: journal.LeaseRow, grant: Grant, shift_ms: int, now_ms: int) -> Lease:
    """A lease as the last run left it: what its watermark covers and nobody accounts for may have been used."""
    lease = new_lease(grant, now_ms, now_ms)
    lease.cap = lease.durable_cap = row.cap
    lease.watermark = row.watermark
    lease.settled = lease.durable_settled = row.settled
    lease.expires_at_ms = min(row.expires_at_ms + shift_ms, now_ms + grant.ttl_ms)
    lease.window_ends_at_ms = row.window_ends_at_ms + shift_ms
    lease.starts_at_ms = lease.window_ends_at_ms - (lease.window_end_ms - lease.window_start_ms)
    lease.begun = row.watermark > 0 or lease.starts_at_ms <= now_ms
    lease.closing = bool(row.closing) or isinstance(lease, RateShare)  # its bucket is gone: it goes home empty
    lease.written = True
    return lease


def from_reservation_row(
    name: str, stored: StoredReservation, leases: dict[str, Lease], card: RateCard, shift_ms: int
) -> Reservation:
    """A call in flight as the last run left it, holding on the leases that are still here."""
    lines = [  # what was taken from rates is not held: their buckets are gone
        Line(
            line.meter,
            (line.customer, line.counter, line.scope_value),
            [(leases[lease], amount) for lease, amount in line.holds if lease in leases],
        )
        for line in stored.lines
        if not is_rate(line.counter)
    ]
    expires_at_ms = stored.expires_at_ms + shift_ms
    return Reservation(
        name,
        stored.call,
        stored.asked,
        stored.amounts,
        lines,
        expires_at_ms,
        stored.version,
        journaled=True,
        card=card,
    )


def _reservation_body(held: Reservation) -> bytes:
    return encode_msgpack(
        StoredReservation(
            held.call,
            held.asked,
            held.amounts,
            tuple(_stored_line(line) for line in held.lines),
            held.expires_at_ms,
            held.version,
            held.card.choose(held.call.feature, held.call.model).rates if held.card.rates else (),
            held.card.plan,
        )
    )


def _stored_line(line: Line) -> StoredLine:
    return StoredLine(line.meter, *line.allowance, _holds(line.holds))


def _holds(holds: Iterable[tuple[Lease, int]]) -> tuple[tuple[str, int], ...]:
    return tuple((lease.id, amount) for lease, amount in holds)


def as_granted(lease: Lease) -> Grant:
    """What the lease was granted as, with its seal: what is journaled, and shown to a control plane that forgot it."""
    return Grant(
        lease.id,
        lease.customer,
        lease.counter,
        lease.scope_value,
        lease.granted,
        lease.ttl_ms,
        lease.window_start_ms,
        lease.window_end_ms,
        0,
        Standing(0, 0),
        lease.central,
        lease.overage,
        finishing=lease.finishing,
        per_ms=lease.per_ms if isinstance(lease, RateShare) else 0,
        burst=lease.lent_burst if isinstance(lease, RateShare) else 0,
        seal=lease.seal,
    )
