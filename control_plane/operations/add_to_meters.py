"""Adds new events to the meters that are made of them; hours in which something was corrected are made anew later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from control_plane.core.aggregates import HOUR_MS, Aggregate, Counted, decode, make
from control_plane.store import catalog, events, meter_values
from control_plane.store.database import Connection
from control_plane.store.meter_values import Hour


def known_aggregates(connection: Connection) -> dict[str, Aggregate]:
    """Every meter that is made of events, and how."""
    return {meter: decode(text) for meter, text in catalog.aggregates(connection).items()}


def add_to_meters(connection: Connection, counted: Sequence[Counted]) -> None:
    """Add what was accepted. Its customers' rows must be held, so that nobody makes their hours anew meanwhile."""
    aggregates = known_aggregates(connection) if counted else {}
    if not aggregates:
        return
    kinds = {meter: aggregate.aggregation.value for meter, aggregate in aggregates.items()}
    calls = [one for one in counted if one.event.corrects is None]
    meter_values.add(connection, list(make(aggregates, calls).items()), kinds)
    meter_values.mark_due(connection, _corrected(connection, counted))


def _corrected(connection: Connection, counted: Sequence[Counted]) -> set[Hour]:
    """The hours of corrections, and of what they correct."""
    named = {(one.event.customer, one.event.corrects or ""): one for one in counted if one.event.corrects}
    at: Mapping[tuple[str, str], int] = events.times(connection, named) if named else {}
    instants = {(name[0], at_ms) for name, at_ms in at.items()}
    instants |= {(one.event.customer, one.at_ms) for one in counted if one.event.corrects}
    return {Hour(customer, at_ms - at_ms % HOUR_MS) for customer, at_ms in instants}
