"""Rollups: maintained sums of usage by hour and minute, read instead of events, and what a new counter starts from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from sqlalchemy import Column, Connection, Insert, Table, case, exists, func, select, true
from sqlalchemy.dialects import postgresql, sqlite

from control_plane.store.allowances import SUM_MAX
from control_plane.store.spans import Span, within
from control_plane.store.tables import customers, rollups
from control_plane.store.usage_tables import minute_rollups, rollup_starts
from control_plane.store.wanted import CHUNK, as_rows, wanted

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
_IN_MAX = 500


class Key(NamedTuple):
    """Which sum; ``model`` is empty where it was not said.

    ``dimension``: ``""`` for the sum of everything (``value`` is empty then), or what kind of subject or which tag
    (``tag:NAME``) has the ``value``.
    """

    customer: str
    dimension: str
    value: str
    minute_ms: int
    meter: str
    feature: str
    model: str


Sums = dict[tuple[str, str, str, int, str, str, str], list[int]]
"""By the parts of a :class:`Key`, how much and in how many events: plain, because every event is added to several."""


def add(connection: Connection, more: Sums) -> None:
    """Add to the sums by hour, and to the totals by minute; in order of key, so that two transactions never wait for
    each other."""
    if not more:
        return
    hours = by_hour(more)
    _add_to(connection, rollups, sorted([*key, bounded(total[0]), total[1]] for key, total in hours.items()))
    minutes: list[list[str | int]] = [
        [key[0], *key[3:], bounded(total[0]), total[1]] for key, total in more.items() if not key[1]
    ]
    _add_to(connection, minute_rollups, sorted(minutes))


def by_hour(minutes: Sums) -> Sums:
    """The same sums by the hour."""
    hours: Sums = {}
    for (customer, dimension, value, minute_ms, meter, feature, model), (quantity, events) in minutes.items():
        hour = (customer, dimension, value, minute_ms - minute_ms % HOUR_MS, meter, feature, model)
        total = hours.get(hour)
        if total is None:
            hours[hour] = [quantity, events]
        else:
            total[0] += quantity
            total[1] += events
    return hours


def bounded(quantity: int) -> int:
    """A sum within what is kept."""
    return max(-SUM_MAX, min(SUM_MAX, quantity))


def _add_to(connection: Connection, table: Table, rows: Sequence[list[str | int]]) -> None:
    statement = _upsert(connection.dialect.name, table)
    for start in range(0, len(rows), CHUNK):
        connection.execute(statement, as_rows(rows[start : start + CHUNK]))


def customers_with_any(connection: Connection, names: Iterable[str]) -> set[str]:
    """Which of these customers have used anything at all."""
    ordered = sorted(set(names))
    has_used = exists(select(rollups.c.customer).where(rollups.c.customer == customers.c.customer))
    found: set[str] = set()
    for start in range(0, len(ordered), _IN_MAX):
        chunk = ordered[start : start + _IN_MAX]
        query = select(customers.c.customer).where(customers.c.customer.in_(chunk), has_used)
        found |= {row.customer for row in connection.execute(query)}
    return found


def minutes_since(connection: Connection) -> int:
    """Since when the totals by minute are whole: a whole hour; 0 if none was ever forgotten."""
    query = select(rollup_starts.c.since_ms).where(rollup_starts.c.grain == "minute")
    return int(connection.execute(query).scalar() or 0)


def used(
    connection: Connection,
    customer: str,
    meter: str,
    start_ms: int,
    end_ms: int,
    *,
    feature: str | None,
    dimension: str = "",
    value: str = "",
) -> int:
    """What a customer used of a meter from ``start_ms`` until before ``end_ms``.

    A total is the sum of the minutes that lie wholly inside the span, where minutes are still kept; what a subject or
    tag value used is that of its hours.

    Args:
        feature: only of this feature; ``None``: of all.
        dimension, value: only of this subject or tag value; without a value what nobody of that kind was named for.
    """
    first_ms, last_ms = -(-start_ms // HOUR_MS) * HOUR_MS, end_ms - end_ms % HOUR_MS
    whole = (rollups, customer, meter, first_ms, last_ms, feature)
    total = 0
    if first_ms < last_ms:
        total = _used(connection, *whole, dimension if value else "", value)
    if dimension:
        return total - _used(connection, *whole, dimension, None) if not value and first_ms < last_ms else total
    end_ms -= end_ms % MINUTE_MS
    edges = [(start_ms, first_ms), (last_ms, end_ms)] if first_ms <= last_ms else [(start_ms, end_ms)]
    for edge in edges:
        if edge[0] < edge[1] and edge[0] >= minutes_since(connection):
            total += _used(connection, minute_rollups, customer, meter, *edge, feature, "", "")
    return total


def _used(
    connection: Connection,
    table: Table,
    customer: str,
    meter: str,
    start_ms: int,
    end_ms: int,
    feature: str | None,
    dimension: str,
    value: str | None,
) -> int:
    at_ms = time_of(table)
    query = select(func.coalesce(func.sum(table.c.quantity), 0)).where(
        table.c.customer == customer, at_ms >= start_ms, at_ms < end_ms, table.c.meter == meter
    )
    if table is rollups:
        query = query.where(table.c.dimension == dimension)
        if value is not None:
            query = query.where(table.c.value == value)
    if feature is not None:
        query = query.where(table.c.feature == feature)
    return int(connection.execute(query).scalar_one())


def time_of(table: Table) -> Column[int]:
    """The column that says of which hour or minute a sum is."""
    return table.c.hour_ms if table is rollups else table.c.minute_ms


def hours(connection: Connection, span: Span, from_ms: int, to_ms: int) -> Sums:
    """All sums by the hour of ``from_ms <= t < to_ms``, for audits."""
    table = rollups.c
    key = (table.customer, table.dimension, table.value, table.hour_ms, table.meter, table.feature, table.model)
    query = select(*key, table.quantity, table.events).where(*within(table.customer, span))
    query = query.where(table.hour_ms >= from_ms, table.hour_ms < to_ms)
    return {tuple(row[:7]): [row[7], row[8]] for row in connection.execute(query)}


def minutes(connection: Connection, span: Span, from_ms: int, to_ms: int) -> Sums:
    """The same for those by the minute."""
    table = minute_rollups.c
    place = (table.minute_ms, table.meter, table.feature, table.model)
    query = select(table.customer, *place, table.quantity, table.events).where(*within(table.customer, span))
    query = query.where(table.minute_ms >= from_ms, table.minute_ms < to_ms)
    return {(row[0], "", "", *row[1:5]): [row[5], row[6]] for row in connection.execute(query)}


def totals(connection: Connection) -> dict[tuple[str, str], int]:
    """All that was ever used, by customer and meter, for tests."""
    by = (rollups.c.customer, rollups.c.meter)
    query = select(*by, func.sum(rollups.c.quantity)).where(rollups.c.dimension == "").group_by(*by)
    return {(row[0], row[1]): int(row[2]) for row in connection.execute(query)}


@cache
def _upsert(dialect: str, target: Table) -> Insert:
    """Many rows as one parameter: preparing each by itself costs more than adding it."""
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    key = list(target.primary_key.columns)
    table = wanted(dialect, [*key, target.c.quantity, target.c.events])
    rows = select(table).where(true()).order_by(*(table.c[col.name] for col in key))
    statement = make(target).from_select([*key, target.c.quantity, target.c.events], rows)
    total = target.c.quantity + statement.excluded.quantity
    bounded = case((total > SUM_MAX, SUM_MAX), (total < -SUM_MAX, -SUM_MAX), else_=total)
    counted = target.c.events + statement.excluded.events
    return statement.on_conflict_do_update(index_elements=key, set_={"quantity": bounded, "events": counted})
