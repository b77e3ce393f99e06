"""Usage events over HTTP: those that were accepted, and those that could not be."""

from __future__ import annotations

import base64

import msgspec
from litestar.di import NamedDependency

from control_plane.api.context import Context
from control_plane.api.parameters import (
    Page,
    PageCursor,
    PageLimit,
    PathKey,
    QueryKey,
    Serial,
    decode_cursor,
    page,
    serial_cursor,
)
from control_plane.api.verbs import reads
from control_plane.operations.change_customer import require_customer
from control_plane.store import listings
from control_plane.store.database import Connection
from control_plane.store.listings import ConflictRow, EventRow
from protocol.codec import MsgpackDecoder
from protocol.events import UsageEvent
from protocol.ids import Key
from protocol.instants import rfc3339
from protocol.violations import Violation

_decode = MsgpackDecoder(UsageEvent)
_POSITION: msgspec.json.Decoder[tuple[int, str]] = msgspec.json.Decoder(tuple[Serial, Key])


class EventItem(msgspec.Struct, frozen=True):
    """An accepted event. ``at``: when it counts; ``usage``: as the agent reported it."""

    event: str
    at: str
    received_at: str
    agent: str
    usage: UsageEvent


class ConflictItem(msgspec.Struct, frozen=True):
    """An event that was not accepted, kept whole: as ``usage`` if it can be read, else as ``raw`` (base64)."""

    conflict: int
    code: str
    customer: str
    event: str
    agent: str
    received_at: str
    usage: UsageEvent | None
    raw: str | None


def _event(row: EventRow) -> EventItem:
    return EventItem(row.event, rfc3339(row.at_ms), rfc3339(row.received_at_ms), row.agent, _decode(bytes(row.body)))


def _conflict(row: ConflictRow) -> ConflictItem:
    body = bytes(row.body)
    usage, raw = None, None
    try:
        usage = _decode(body)
    except Violation:
        raw = base64.b64encode(body).decode()
    at = rfc3339(row.received_at_ms)
    return ConflictItem(row.conflict, row.code, row.customer, row.event, row.agent, at, usage, raw)


@reads("/v1/customers/{customer:str}/events", tags=["customers"])
def list_events(
    customer: PathKey, context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[EventItem]:
    """The customer's events, newest first."""
    before = None if cursor is None else decode_cursor(cursor, _POSITION)

    def look(connection: Connection) -> list[EventRow]:
        require_customer(connection, customer)
        return listings.events_before(connection, customer, before, limit + 1)

    return page(context.read(look), limit, _event, lambda row: (row.at_ms, row.event))


@reads("/v1/event-conflicts", tags=["audit"])
def list_event_conflicts(
    context: NamedDependency[Context],
    customer: QueryKey = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Page[ConflictItem]:
    """Events that could not be accepted, newest first; none is ever dropped."""
    before = serial_cursor(cursor)
    rows = context.read(lambda connection: listings.conflicts_before(connection, before, limit + 1, customer))
    return page(rows, limit, _conflict, lambda row: row.conflict)


EVENT_HANDLERS = [list_events, list_event_conflicts]
