"""Proves that events, ledger, sums of usage and allowances agree, some customers at a time; names each difference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from control_plane.operations.audit_books import Difference, Part, book_differences
from control_plane.operations.audit_meters import meter_differences
from control_plane.operations.audit_usage import usage_differences
from control_plane.store import spans
from control_plane.store.database import Connection, Database
from control_plane.store.spans import Span
from protocol.instants import INSTANT_MS_MAX

HOUR_MS = 3_600_000
CUSTOMERS_MAX = 200
EVENTS_MAX = 50_000


class Reconciled(NamedTuple):
    """What was found of some customers. ``customers``: how many of these are known."""

    customers: int
    differences: list[Difference]
    upto: str | None


def reconcile(database: Database, after: str = "", *, only: str | None = None) -> Iterator[Reconciled]:
    """Look at all customers (after a name; or one), a span of them at a time, each in a state of its own that is whole.

    A span is small, and a customer with many events is looked at a piece of time after the other: nothing here grows
    with the size of the database.

    Raises: DatabaseUnavailable.
    """
    upto: str | None = after
    while upto is not None:
        span, count = Span(only=only), 1
        if only is None:
            start = upto
            span, count = database.read(
                lambda connection, start=start: spans.following(connection, start, CUSTOMERS_MAX, EVENTS_MAX)  # type: ignore[misc]
            )
        yield Reconciled(count, list(_span(database, span, count)), span.upto)
        upto = span.upto


def _span(database: Database, span: Span, count: int) -> Iterator[Difference]:
    yield from database.read(lambda connection: list(book_differences(connection, span)))
    from_ms: int | None = 0
    while from_ms is not None:
        start_ms = from_ms

        def look(connection: Connection, start_ms: int = start_ms) -> tuple[list[Difference], int | None]:
            edge_ms = spans.edge_ms(connection, span, start_ms, EVENTS_MAX) if count == 1 else None
            to_ms = None if edge_ms is None else edge_ms - edge_ms % HOUR_MS + HOUR_MS
            end_ms = to_ms or INSTANT_MS_MAX + HOUR_MS
            sums = usage_differences(connection, span, start_ms, end_ms)
            found = [Difference.of(Part.USAGE, text) for text in sums]
            meters = meter_differences(connection, span, start_ms, end_ms)
            return found + [Difference.of(Part.METERS, text) for text in meters], to_ms

        found, from_ms = database.read(look)
        yield from found
