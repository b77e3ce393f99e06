"""Rollups: maintained sums of usage by hour, read instead of events, and what a new counter starts from."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection, Insert, case, exists, func, select, true
from sqlalchemy.dialects import postgresql, sqlite

from control_plane.store.allowances import SUM_MAX
from control_plane.store.tables import customers, rollups
from control_plane.store.wanted import CHUNK, as_rows, wanted

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
    hour_ms: int
    meter: str
    feature: str
    model: str


Sums = dict[tuple[str, str, str, int, str, str, str], list[int]]
"""By the parts of a :class:`Key`, how much and in how many events: plain, because every event is added to several."""


def add(connection: Connection, more: Sums) -> None:
    """Add to sums; in order of key, so that two transactions never wait for each other."""
    if not more:
        return
    rows: list[list[str | int]] = [
        [*key, max(-SUM_MAX, min(SUM_MAX, total[0])), total[1]] for key, total in sorted(more.items())
    ]
    statement = _upsert(connection.dialect.name)
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
    """What a customer used of a meter in the hours that lie wholly between ``start_ms`` and ``end_ms``.

    Args:
        feature: only of this feature; ``None``: of all.
        dimension, value: only of this subject or tag value; without a value what nobody of that kind was named for.
    """
    total = _used(connection, customer, meter, start_ms, end_ms, feature, dimension if value else "", value)
    if dimension and not value:
        total -= _used(connection, customer, meter, start_ms, end_ms, feature, dimension, None)
    return total


def _used(
    connection: Connection,
    customer: str,
    meter: str,
    start_ms: int,
    end_ms: int,
    feature: str | None,
    dimension: str,
    value: str | None,
) -> int:
    query = select(func.coalesce(func.sum(rollups.c.quantity), 0)).where(
        rollups.c.customer == customer,
        rollups.c.dimension == dimension,
        rollups.c.hour_ms >= start_ms,
        rollups.c.hour_ms <= end_ms - HOUR_MS,
        rollups.c.meter == meter,
    )
    if value is not None:
        query = query.where(rollups.c.value == value)
    if feature is not None:
        query = query.where(rollups.c.feature == feature)
    return int(connection.execute(query).scalar_one())


def totals(connection: Connection) -> dict[tuple[str, str], int]:
    """All that was ever used, by customer and meter, for the audit."""
    by = (rollups.c.customer, rollups.c.meter)
    query = select(*by, func.sum(rollups.c.quantity)).where(rollups.c.dimension == "").group_by(*by)
    return {(row[0], row[1]): int(row[2]) for row in connection.execute(query)}


@cache
def _upsert(dialect: str) -> Insert:
    """Many rows as one parameter: preparing each by itself costs more than adding it."""
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    columns = [rollups.c[name] for name in (*Key._fields, "quantity", "events")]
    table = wanted(dialect, columns)
    rows = select(table).where(true()).order_by(*(table.c[name] for name in Key._fields))
    statement = make(rollups).from_select(columns, rows)
    total = rollups.c.quantity + statement.excluded.quantity
    bounded = case((total > SUM_MAX, SUM_MAX), (total < -SUM_MAX, -SUM_MAX), else_=total)
    counted = rollups.c.events + statement.excluded.events
    key = [rollups.c[name] for name in Key._fields]
    return statement.on_conflict_do_update(index_elements=key, set_={"quantity": bounded, "events": counted})
