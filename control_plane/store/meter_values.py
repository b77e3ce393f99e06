"""What meters that are made of events come to, by the hour; and which hours are still to be made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from control_plane.store.meter_tables import meter_hours_due, meter_makings, meter_values
from control_plane.store.rollups import bounded
from control_plane.store.usage import Parts, bucket
from control_plane.store.wanted import CHUNK, as_rows, wanted

Place = tuple[str, str, int, str, str, str, str]
"""Customer, meter, hour, the values of up to three attributes, and the value that is counted as one of many."""

Made = tuple[int, int]
"""A quantity, and when it was (0: no matter)."""

AGGREGATIONS = ("sum", "count", "max", "latest", "unique_count")

_TIME = "time"
_GROUPS = (meter_values.c.group_1, meter_values.c.group_2, meter_values.c.group_3)


class Hour(NamedTuple):
    """An hour of a customer."""

    customer: str
    hour_ms: int


def add(connection: Connection, made: Sequence[tuple[Place, Made]], aggregations: Mapping[str, str]) -> None:
    """Add to what is kept, as each meter's aggregation says; in order of key, so that two transactions never wait for
    each other."""
    for aggregation in AGGREGATIONS:
        rows = sorted(_row(*item) for item in made if aggregations[item[0][1]] == aggregation)
        statement = _upsert(connection.dialect.name, aggregation)
        for start in range(0, len(rows), CHUNK):
            connection.execute(statement, as_rows(rows[start : start + CHUNK]))


def replace(
    connection: Connection,
    customer: str,
    meters: Iterable[str],
    span: tuple[int, int],
    made: Iterable[tuple[Place, Made]],
) -> None:
    """Keep this instead of all that there is of a customer in some meters, from one whole hour until before another.
    The customer's row must be held."""
    table = meter_values.c
    old = and_(table.customer == customer, table.hour_ms >= span[0], table.hour_ms < span[1])
    connection.execute(delete(meter_values).where(old, table.meter.in_(sorted(meters))))
    names = [column.name for column in meter_values.columns]
    rows = [dict(zip(names, _row(*item), strict=True)) for item in made]
    if rows:
        connection.execute(insert(meter_values), rows)


def _row(place: Place, made: Made) -> list[str | int]:
    return [*place, bounded(made[0]), made[1]]


def kept(connection: Connection, customer: str, meters: Iterable[str], from_ms: int, to_ms: int) -> dict[Place, Made]:
    """All that there is of a customer in these meters, for audits."""
    table = meter_values.c
    query = select(meter_values).where(table.customer == customer, table.meter.in_(sorted(meters)))
    rows = connection.execute(query.where(table.hour_ms >= from_ms, table.hour_ms < to_ms))
    return {tuple(row[:7]): (row[7], row[8]) for row in rows}


@dataclass(frozen=True)
class Wanted:
    """Which values are wanted.

    Attributes:
        from_ms, to_ms: whole hours.
        times: how instants fall into buckets; ``None``: one value for all.
        groups: by which of ``group_by`` (0 to 2) it is told apart, in order. only: what these must be.
    """

    customer: str
    meter: str
    aggregation: str
    from_ms: int
    to_ms: int
    times: Parts | None = None
    groups: Sequence[int] = ()
    only: Mapping[int, str] = field(default_factory=dict)


def values(
    connection: Connection, asked: Wanted, count: int, after: Sequence[str | int] | None = None
) -> list[tuple[list[str | int], int]]:
    """Keys and value of each group with any: the first ``count`` in order of their keys that come after ``after``. The
    keys are the bucket, where there are any, and the groups."""
    table = meter_values.c
    parts: list[ColumnElement[Any]] = [] if asked.times is None else [bucket(table.hour_ms, asked.times).label(_TIME)]
    parts += [_GROUPS[at].label(f"key_{at}") for at in asked.groups]
    query = select(*parts, table.member, table.quantity, table.at_ms).where(
        table.customer == asked.customer,
        table.meter == asked.meter,
        table.hour_ms >= asked.from_ms,
        table.hour_ms < asked.to_ms,
        *(_GROUPS[at] == value for at, value in asked.only.items()),
    )
    rows = query.subquery()
    keys = [rows.c[part.name] for part in parts]
    if asked.aggregation == "latest":
        newest = (rows.c.at_ms.desc(), rows.c.quantity.desc())
        place = func.row_number().over(partition_by=keys or None, order_by=newest)
        ranked = select(*rows.c, place.label("place")).subquery()
        keys = [ranked.c[part.name] for part in parts]
        found = select(*keys, ranked.c.quantity.label("value")).where(ranked.c.place == 1)
    else:
        found = select(*keys, _value(asked.aggregation, rows).label("value")).group_by(*keys)
        found = found.having(func.count() > 0)
    if after is not None:
        bounds = [literal(part, key.type) for part, key in zip(after, keys, strict=True)]
        found = found.where(tuple_(*keys) > tuple_(*bounds))
    answer = connection.execute(found.order_by(*keys).limit(count))
    return [(list(row[:-1]), int(row[-1])) for row in answer]


def _value(aggregation: str, rows: Any) -> ColumnElement[int]:
    match aggregation:
        case "max":
            return func.max(rows.c.quantity)
        case "unique_count":
            return func.count(rows.c.member.distinct())
        case _:
            return func.sum(rows.c.quantity)


def mark_due(connection: Connection, hours: Iterable[Hour]) -> None:
    """These hours are to be made anew."""
    rows = sorted(set(hours))
    statement = _due(connection.dialect.name)
    for start in range(0, len(rows), CHUNK):
        connection.execute(statement, as_rows(rows[start : start + CHUNK]))


def due(connection: Connection, count: int) -> list[Hour]:
    """Up to ``count`` hours that are to be made anew."""
    query = select(meter_hours_due).order_by(meter_hours_due.c.customer, meter_hours_due.c.hour_ms)
    return [Hour(*row) for row in connection.execute(query.limit(count))]


def take_due(connection: Connection, hour: Hour) -> bool:
    """It will be made now; ``False``: somebody else has done it."""
    table = meter_hours_due.c
    return bool(
        connection.execute(
            delete(meter_hours_due).where(table.customer == hour.customer, table.hour_ms == hour.hour_ms)
        ).rowcount
    )


def begin_making(connection: Connection, meter: str) -> None:
    """A meter is to be made of all that there is."""
    connection.execute(insert(meter_makings).values(meter=meter, customer="", hour_ms=0))


def makings(connection: Connection) -> dict[str, Hour]:
    """How far meters are made that are not whole yet."""
    return {row.meter: Hour(row.customer, row.hour_ms) for row in connection.execute(select(meter_makings))}


def go_on_making(connection: Connection, meter: str, before: Hour, after: Hour | None) -> None:
    """A meter is made up to there; ``None``: it is whole. Unless somebody else went on from where it was."""
    table = meter_makings.c
    here = and_(table.meter == meter, table.customer == before.customer, table.hour_ms == before.hour_ms)
    if after is None:
        connection.execute(delete(meter_makings).where(here))
    else:
        connection.execute(update(meter_makings).where(here).values(customer=after.customer, hour_ms=after.hour_ms))


def is_whole(connection: Connection, customer: str, meter: str, from_ms: int, to_ms: int) -> bool:
    """Whether nothing of the span is still to be made."""
    late, making = meter_hours_due.c, meter_makings.c
    hour = exists().where(late.customer == customer, late.hour_ms >= from_ms, late.hour_ms < to_ms)
    behind = or_(making.customer < customer, and_(making.customer == customer, making.hour_ms < to_ms))
    part = exists().where(making.meter == meter, behind)
    return bool(connection.execute(select(~hour & ~part)).scalar())


@cache
def _upsert(dialect: str, aggregation: str) -> Insert:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    key, table = list(meter_values.primary_key.columns), wanted(dialect, list(meter_values.columns))
    rows = select(table).where(true()).order_by(*(table.c[column.name] for column in key))
    statement = make(meter_values).from_select(list(meter_values.columns), rows)
    new, old = statement.excluded, meter_values.c
    changed: dict[str, Any]
    match aggregation:
        case "max":
            changed = {"quantity": case((new.quantity > old.quantity, new.quantity), else_=old.quantity)}
        case "latest":
            later = tuple_(new.at_ms, new.quantity) > tuple_(old.at_ms, old.quantity)
            changed = {name: case((later, new[name]), else_=old[name]) for name in ("quantity", "at_ms")}
        case _:
            changed = {"quantity": old.quantity + new.quantity}
    return statement.on_conflict_do_update(index_elements=key, set_=changed)


@cache
def _due(dialect: str) -> Insert:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    table = wanted(dialect, list(meter_hours_due.columns))
    rows = select(table).where(true())
    statement = make(meter_hours_due).from_select(list(meter_hours_due.columns), rows)
    return statement.on_conflict_do_nothing()
