"""Reads the maintained hourly sums of usage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, literal_column, select

from control_plane.store.tables import rollups

# In the text of the statement, not a parameter: PostgreSQL takes two equal parameters for two expressions.
_DAY_MS: ColumnElement[int] = literal_column("86400000")

KEYS: dict[str, ColumnElement[Any]] = {
    "meter": rollups.c.meter,
    "feature": rollups.c.feature,
    "model": rollups.c.model,
    "hour": rollups.c.hour_ms,
    "day": rollups.c.hour_ms - rollups.c.hour_ms % _DAY_MS,
    "value": rollups.c.value,
}
"""What sums can be told apart by; ``value`` is that of the subject or tag which the sums are of."""


def sums(
    connection: Connection,
    customer: str,
    from_ms: int,
    to_ms: int,
    keys: Sequence[str],
    count: int,
    *,
    dimension: str = "",
    value: str | None = None,
) -> list[dict[str, Any]]:
    """Quantity and events of each group in ``from_ms <= hour < to_ms``: the first ``count`` in order of their keys.

    Args:
        dimension: of what names a subject of this kind, or this tag (see :class:`control_plane.store.rollups.Key`).
        value: only of what names this one.
    """
    columns = [KEYS[key].label(key) for key in keys]
    query = (
        select(*columns, func.sum(rollups.c.quantity).label("quantity"), func.sum(rollups.c.events).label("events"))
        .where(rollups.c.customer == customer, rollups.c.dimension == dimension)
        .where(rollups.c.hour_ms >= from_ms, rollups.c.hour_ms < to_ms)
        .group_by(*columns)
        .order_by(*columns)
        .limit(count)
    )
    if value is not None:
        query = query.where(rollups.c.value == value)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    for row in rows:
        row["quantity"], row["events"] = int(row["quantity"]), int(row["events"])
    return rows
