"""Takes usage from spans: each call that they tell of once, however many spans tell of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from control_plane.core.spans import SpanName, Trace, described, parse_name
from control_plane.operations.author import Author
from control_plane.operations.correct_usage import Item, ItemResult
from control_plane.operations.enter_corrections import SPANS, trace_journal
from control_plane.operations.enter_missed import enter_missed, keep_aside
from control_plane.operations.price_missed import Missed
from control_plane.store import customers, events
from control_plane.store.database import Connection
from protocol.events import UsageEvent

ParentsOf = Mapping[str, Mapping[str, str]]
"""By trace, the spans that a request brings, and the span around each."""


LOOKED_AT_MAX = 50_000
"""Spans in the ledger that new ones are held against at a time: of longer traces not all."""


@dataclass(frozen=True)
class SpanCall:
    """A call that a span tells of; the event's name is the span's."""

    customer: str
    name: SpanName
    call: Missed


def accept_spans(
    connection: Connection, calls: Sequence[SpanCall], parents: ParentsOf, author: Author
) -> tuple[list[Item], tuple[UsageEvent, ...]]:
    """Enter these calls, but not what another span tells of. Returns what came of each, and what was entered."""
    customers.hold(connection, {one.customer for one in calls})
    known = events.names_of_journals(
        connection, {trace_journal(one.customer, one.name.trace) for one in calls}, LOOKED_AT_MAX
    )
    by_trace: dict[tuple[str, str], list[SpanName]] = {}
    for one in calls:
        by_trace.setdefault((one.customer, one.name.trace), []).append(one.name)
    told_by: dict[tuple[str, SpanName], SpanName | None] = {}
    for (customer, trace), names in by_trace.items():
        counted = tuple(filter(None, map(parse_name, known.get(trace_journal(customer, trace), ()))))
        others = described(names, Trace(parents.get(trace, {}), counted))
        told_by |= {(customer, name): other for name, other in others.items()}
    chosen = [one for one in calls if told_by[one.customer, one.name] in (None, one.name)]
    maker = f"{SPANS}~{author.token}"
    found = enter_missed(connection, maker, [(one.customer, one.call) for one in chosen], author)
    keep_aside(connection, maker, found.aside, author.now_ms)
    results = iter(found.items)
    items = []
    for one in calls:
        other = told_by[one.customer, one.name]
        if other in (None, one.name):
            items.append(next(results))
        else:
            items.append(Item(one.name.event, ItemResult.DUPLICATE, f"span {other.span} tells of the same call"))
    return items, found.entered.events
