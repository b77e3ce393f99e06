"""Makes meters of the events that are there: hours in which something was corrected, and all that was before a meter
was declared."""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.core.aggregates import HOUR_MS, Aggregate, Aggregation, Counted, Made, Place, corrected, make
from control_plane.operations.add_to_meters import known_aggregates
from control_plane.store import customers, events, meter_values, periods, spans
from control_plane.store.database import Connection
from control_plane.store.events import Kept
from control_plane.store.meter_values import Hour
from control_plane.store.spans import Span
from protocol.codec import MsgpackDecoder
from protocol.events import UsageEvent
from protocol.instants import INSTANT_MS_MAX

EVENTS_MAX = 20_000
"""So many events are looked at in one transaction, and all that are in the same hour as the last."""

HOURS_MAX = 50

END_MS = INSTANT_MS_MAX + HOUR_MS

_decode = MsgpackDecoder(UsageEvent)


def any_to_make(connection: Connection) -> bool:
    """Whether anything is left to be done."""
    return bool(meter_values.due(connection, 1) or meter_values.makings(connection))


def make_due_hours(connection: Connection) -> None:
    """Make some of the hours anew in which something was corrected."""
    aggregates = known_aggregates(connection)
    found = meter_values.due(connection, HOURS_MAX)
    customers.hold(connection, {hour.customer for hour in found})
    for hour in found:
        if meter_values.take_due(connection, hour):
            _make(connection, aggregates, hour.customer, (hour.hour_ms, hour.hour_ms + HOUR_MS))


def make_more(connection: Connection) -> None:
    """Go on with a meter that is not whole: one customer, or some of its hours."""
    for meter, here in sorted(meter_values.makings(connection).items())[:1]:
        customer, start_ms = here
        if not customer or start_ms == END_MS:
            following = customers.after(connection, customer, 1)
            if not following:
                meter_values.go_on_making(connection, meter, here, None)
                return
            customer, start_ms = following[0].customer, 0
        customers.hold(connection, [customer])
        edge_ms = spans.edge_ms(connection, Span(only=customer), start_ms, EVENTS_MAX)
        to_ms = END_MS if edge_ms is None else edge_ms - edge_ms % HOUR_MS + HOUR_MS
        aggregates = {name: one for name, one in known_aggregates(connection).items() if name == meter}
        _make(connection, aggregates, customer, (start_ms, to_ms))
        meter_values.go_on_making(connection, meter, here, Hour(customer, to_ms))


def made_of(
    connection: Connection, aggregates: Mapping[str, Aggregate], customer: str, span: tuple[int, int]
) -> dict[Place, Made]:
    """What a customer's events of a span of whole hours come to.

    Sums are of all events, corrections where they count. All else is of calls, each as its corrections left it; but
    corrections that came after a billing period was closed change nothing in it.
    """
    told = [(kept, _decode(kept.body)) for kept in events.between(connection, customer, *span)]
    sums = {meter: one for meter, one in aggregates.items() if one.aggregation is Aggregation.SUM}
    others = {meter: one for meter, one in aggregates.items() if one.aggregation is not Aggregation.SUM}
    made = make(sums, (Counted(event, kept.at_ms) for kept, event in told))
    if others:
        calls = [(kept, event) for kept, event in told if kept.corrects is None]
        later: dict[str, list[UsageEvent]] = {}
        for kept in events.corrections(connection, customer, (kept.event for kept, _ in calls)):
            if not _came_too_late(connection, customer, kept):
                later.setdefault(kept.corrects or "", []).append(_decode(kept.body))
        left = ((corrected(event, later.get(kept.event, ())), kept.at_ms) for kept, event in calls)
        made |= make(others, (Counted(event, at_ms) for event, at_ms in left if event is not None))
    return made


def _make(connection: Connection, aggregates: Mapping[str, Aggregate], customer: str, span: tuple[int, int]) -> None:
    meter_values.replace(
        connection, customer, aggregates, span, made_of(connection, aggregates, customer, span).items()
    )


def _came_too_late(connection: Connection, customer: str, correction: Kept) -> bool:
    return periods.counted_at(connection, customer, correction.event) is not None
