"""Rollups: maintained sums of usage by hour, read instead of events, and what a new counter starts from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection, Insert, case, exists, func, select
from sqlalchemy.dialects import postgresql, sqlite

from control_plane.store.allowances import SUM_MAX
from control_plane.store.tables import customers, rollups

HOUR_MS = 3_600_000
_IN_MAX = 500


class Key(NamedTuple):
    """Which sum; ``model`` and ``user`` are empty where they were not said."""

    customer: str
    hour_ms: int
    meter: str
    feature: str
    model: str
    user: str


class Sum(NamedTuple):
    """How much, in how many events."""

    quantity: int
    events: int


def add(connection: Connection, more: Mapping[Key, Sum]) -> None:
    """Add to sums; in order of key, so that two transactions never wait for each other."""
    if not more:
        return
    rows = [
        {**key._asdict(), "quantity": max(-SUM_MAX, min(SUM_MAX, total.quantity)), "events": total.events}
        for key, total in sorted(more.items())
    ]
    connection.execute(_upsert(connection.dialect.name), rows)


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
    user: str | None,
) -> int:
    """What a customer used of a meter in the hours that lie wholly between ``start_ms`` and ``end_ms``.

    Args:
        feature, user: only of this feature, of this user; ``None``: of all.
    """
    query = select(func.coalesce(func.sum(rollups.c.quantity), 0)).where(
        rollups.c.customer == customer,
        rollups.c.hour_ms >= start_ms,
        rollups.c.hour_ms <= end_ms - HOUR_MS,
        rollups.c.meter == meter,
    )
    if feature is not None:
        query = query.where(rollups.c.feature == feature)
    if user is not None:
        query = query.where(rollups.c.user == user)
    return int(connection.execute(query).scalar_one())


def totals(connection: Connection) -> dict[tuple[str, str], int]:
    """All that was ever used, by customer and meter, for the audit."""
    by = (rollups.c.customer, rollups.c.meter)
    query = select(*by, func.sum(rollups.c.quantity)).group_by(*by)
    return {(row[0], row[1]): int(row[2]) for row in connection.execute(query)}


@cache
def _upsert(dialect: str) -> Insert:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(rollups)
    total = rollups.c.quantity + statement.excluded.quantity
    bounded = case((total > SUM_MAX, SUM_MAX), (total < -SUM_MAX, -SUM_MAX), else_=total)
    counted = rollups.c.events + statement.excluded.events
    key = [rollups.c[name] for name in Key._fields]
    return statement.on_conflict_do_update(index_elements=key, set_={"quantity": bounded, "events": counted})
