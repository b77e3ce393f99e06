"""Reads the maintained sums of usage: whole hours from those by the hour, parts of hours from those by the minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Select,
    Subquery,
    Table,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)

from control_plane.store.rollups import time_of
from control_plane.store.tables import rollups
from control_plane.store.usage_tables import minute_rollups
from control_plane.store.wanted import as_rows, wanted

Parts = Sequence[tuple[int, int, int]]
"""How instants fall into buckets: before the first number, in the one that begins a whole number of times the third
after the second. The last part has all that is left."""

_SPLIT = [Column(name, BigInteger) for name in ("split_ms", "from_ms", "to_ms")]


@dataclass(frozen=True)
class Sought:
    """Which sums are wanted.

    Attributes:
        customers: whose.
        from_ms, to_ms: ``from_ms <= t < to_ms``.
        keys: what they are told apart by, in order: ``customer``, ``meter``, ``feature``, ``model``, ``value``, or a
            name in ``times``.
        times: how instants fall into buckets, by the key's name.
        splits: what is summed by the minute, as (whole hour, from, to); the rest is summed by the hour.
        by_hour: there is such a rest.
        only: what meter, feature or model must be, by column.
        dimension: the subject or tag (see :class:`control_plane.store.rollups.Key`), whose sums are kept by the hour.
        value: only of what names this one.
        with_unnamed: also what names nobody, with value ``""``.
    """

    customers: Sequence[str]
    from_ms: int
    to_ms: int
    keys: Sequence[str]
    times: Mapping[str, Parts] = field(default_factory=dict)
    splits: Parts = ()
    by_hour: bool = True
    only: Mapping[str, str] = field(default_factory=dict)
    dimension: str = ""
    value: str | None = None
    with_unnamed: bool = False


def sums(
    connection: Connection, sought: Sought, count: int, after: Sequence[str | int] | None = None
) -> list[dict[str, Any]]:
    """Quantity and events of each group: the first ``count`` in order of their keys that come after ``after``."""
    table = _rows(connection.dialect.name, sought)
    keys = [table.c[key] for key in sought.keys]
    quantity, events = func.sum(table.c.quantity), func.sum(table.c.events)
    query = select(*keys, quantity.label("quantity"), events.label("events"))
    query = query.group_by(*keys).order_by(*keys).limit(count)
    if sought.with_unnamed:
        query = query.having(or_(table.c.value != "", quantity != 0, events != 0))
    if after is not None:
        query = query.where(
            tuple_(*keys) > tuple_(*(literal(part, key.type) for part, key in zip(after, keys, strict=True)))
        )
    rows = [dict(row) for row in connection.execute(query, as_rows(sought.splits)).mappings()]
    for row in rows:
        row["quantity"], row["events"] = int(row["quantity"]), int(row["events"])
    return rows


def since(connection: Connection, customer: str, from_ms: int) -> dict[tuple[str, str], int]:
    """What a customer used from this whole minute on, by meter and feature."""
    table = minute_rollups.c
    query = select(table.meter, table.feature, func.sum(table.quantity)).group_by(table.meter, table.feature)
    rows = connection.execute(query.where(table.customer == customer, table.minute_ms >= from_ms))
    return {(row[0], row[1]): int(row[2]) for row in rows}


def of_values(
    connection: Connection, customer: str, about: tuple[str, str, str | None], values: Sequence[str], from_ms: int
) -> dict[str, int]:
    """What each value of a subject or tag used from this whole hour on.

    Args:
        about: the dimension, the meter, and the feature (``None``: all).
    """
    dimension, meter, feature = about
    table = rollups.c
    query = (
        select(table.value, func.sum(table.quantity))
        .group_by(table.value)
        .where(
            table.customer == customer, table.dimension == dimension, table.value.in_(values), table.hour_ms >= from_ms
        )
    )
    query = query.where(table.meter == meter)
    if feature is not None:
        query = query.where(table.feature == feature)
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def _rows(dialect: str, sought: Sought) -> Subquery:
    """Every sum that counts, with the keys that are asked for."""
    parts = [_part(sought, rollups, sought.dimension)]
    if sought.with_unnamed:  # everything, less what names somebody
        parts.append(_part(sought, rollups, ""))
        parts.append(_part(sought, rollups, sought.dimension, value="", sign=-1))
    if sought.splits:
        split = wanted(dialect, _SPLIT)
        parts[0] = parts[0].where(rollups.c.hour_ms.not_in(select(split.c.split_ms)))
        by_minute = _part(sought, minute_rollups, "")
        inside = and_(minute_rollups.c.minute_ms >= split.c.from_ms, minute_rollups.c.minute_ms < split.c.to_ms)
        parts = [*(parts if sought.by_hour else ()), by_minute.join_from(split, minute_rollups, inside)]
    return union_all(*parts).subquery() if len(parts) > 1 else parts[0].subquery()


def _part(sought: Sought, table: Table, dimension: str, value: str | None = None, sign: int = 1) -> Select[Any]:
    names = table.c.customer.in_(sought.customers)
    whose = names if len(sought.customers) != 1 else table.c.customer == sought.customers[0]
    at_ms = time_of(table)
    columns = [_column(table, key, sought, value).label(key) for key in sought.keys]
    query = select(*columns, (table.c.quantity * sign).label("quantity"), (table.c.events * sign).label("events"))
    query = query.where(whose, at_ms >= sought.from_ms, at_ms < sought.to_ms)
    query = query.where(*(table.c[name] == text for name, text in sought.only.items()))
    if table is rollups:
        query = query.where(table.c.dimension == dimension)
        if not dimension:
            query = query.where(table.c.value == "")
        elif sought.value is not None:
            query = query.where(table.c.value == sought.value)
    return query


def _column(table: Table, key: str, sought: Sought, value: str | None) -> ColumnElement[Any]:
    if key in sought.times:
        return bucket(time_of(table), sought.times[key])
    if key == "value" and value is not None:
        return literal(value)
    column: ColumnElement[Any] = table.c[key]
    return column


def bucket(at_ms: Column[int], parts: Parts) -> ColumnElement[int]:
    """When the bucket of an instant begins."""
    found = [
        (at_ms < _number(end_ms), at_ms - (at_ms - _number(start_ms)) % _number(length_ms))
        for end_ms, start_ms, length_ms in parts
    ]
    return case(*found[:-1], else_=found[-1][1]) if len(found) > 1 else found[0][1]


def _number(value: int) -> ColumnElement[int]:
    return literal(value, BigInteger)
