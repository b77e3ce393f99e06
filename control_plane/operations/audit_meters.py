"""Recomputes meters that are made of events from the events."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.operations.add_to_meters import known_aggregates
from control_plane.operations.make_meters import made_of
from control_plane.store import meter_values, spans
from control_plane.store.database import Connection
from control_plane.store.spans import Span
from protocol.instants import rfc3339
from protocol.violations import Violation

_NOTHING = (0, 0)


def meter_differences(connection: Connection, span: Span, from_ms: int, to_ms: int) -> Iterator[str]:
    """For each meter, customer and whole hour of ``from_ms <= t < to_ms``: what is kept = what the events come to.

    What is still to be made, and says so, is left out.
    """
    aggregates = known_aggregates(connection)
    for customer in spans.names(connection, span) if aggregates else ():
        whole = {
            meter: one
            for meter, one in aggregates.items()
            if meter_values.is_whole(connection, customer, meter, from_ms, to_ms)
        }
        try:
            made = {
                (*place,): (*value,) for place, value in made_of(connection, whole, customer, (from_ms, to_ms)).items()
            }
        except Violation:
            continue  # an event cannot be read: the audit of sums says which
        kept = meter_values.kept(connection, customer, whole, from_ms, to_ms)
        for place in sorted(kept.keys() | made.keys()):
            have, said = kept.get(place, _NOTHING), made.get(place, _NOTHING)
            if have != said:
                where = f"{customer}/{place[1]}/{'/'.join(place[3:])} at {rfc3339(place[2])}"
                yield f"{where}: what is kept and events differ: {have[0]} and {said[0]}"
