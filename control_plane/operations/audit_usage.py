"""Recomputes the sums of usage from the events, by hour and by minute, and holds each event to its own digest."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.core.reconciliation import counted_at_ms, digest
from control_plane.operations.sum_events import add_to_sums
from control_plane.store import events, periods, rollups
from control_plane.store.database import Connection
from control_plane.store.rollups import Sums
from control_plane.store.spans import Span
from protocol.codec import MsgpackDecoder
from protocol.events import UsageEvent
from protocol.instants import rfc3339
from protocol.violations import Violation

_decode = MsgpackDecoder(UsageEvent)


def usage_differences(connection: Connection, span: Span, from_ms: int, to_ms: int) -> Iterator[str]:
    """For each event of ``from_ms <= t < to_ms`` (whole hours): its body = its digest, and it counts when it must.
    For each sum by hour, and by minute where minutes are kept: the sum = what the events say."""
    sums: Sums = {}
    since_ms = rollups.minutes_since(connection)
    for row in events.told(connection, span, from_ms, to_ms):
        where = f"{row.customer}/{row.event}"
        try:
            event = _decode(row.body)
        except Violation as violation:
            yield f"{where}: the event cannot be read: {violation.message}"
            continue
        if digest(event) != row.digest or (event.customer, event.event) != (row.customer, row.event):
            yield f"{where}: the event and its digest differ: its body was changed"
        said = {event.at_ms, counted_at_ms(event.at_ms, row.received_at_ms)}
        if row.at_ms not in said and row.at_ms != periods.counted_at(connection, row.customer, row.event):
            yield f"{where}: the event counts at {rfc3339(row.at_ms)}, and says {rfc3339(event.at_ms)}"
        add_to_sums(sums, event, row.at_ms)
    yield from _differences("hourly sums", rollups.hours(connection, span, from_ms, to_ms), rollups.by_hour(sums))
    minutes = {key: total for key, total in sums.items() if not key[1] and key[3] >= since_ms}
    kept = rollups.minutes(connection, span, max(from_ms, since_ms), to_ms)
    yield from _differences("sums by the minute", kept, minutes)


def _differences(what: str, kept: Sums, computed: Sums) -> Iterator[str]:
    for key in sorted(kept.keys() | computed.keys()):
        have, said = kept.get(key, [0, 0]), computed.get(key, [0, 0])
        customer, dimension, value, at_ms, meter, feature, model = key
        whose = f"/{dimension}={value}" if dimension else ""
        where = f"{customer}/{meter}/{feature}/{model}{whose} at {rfc3339(at_ms)}"
        if have[0] != rollups.bounded(said[0]):
            yield f"{where}: {what} and events differ: {have[0]} and {said[0]}"
        if have[1] != said[1]:
            yield f"{where}: {what} and events differ in how many events there are: {have[1]} and {said[1]}"
