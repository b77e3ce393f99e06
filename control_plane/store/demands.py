"""What agents lately asked of allowances: the input of lease sizing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Insert, Select, and_, bindparam, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from control_plane.store.tables import demands
from control_plane.store.wanted import CHUNK, apart_as_rows, as_rows, wanted, whose

_PLACE = (demands.c.customer, demands.c.counter, demands.c.scope_value)


class Place(NamedTuple):
    """An allowance without its window: demand goes on from one window to the next."""

    customer: str
    counter: str
    scope_value: str


class Demand(NamedTuple):
    """What one agent asked for when it last asked."""

    agent: str
    demand_per_min: int
    typical: int


class Together(NamedTuple):
    """How many agents lately asked of an allowance, and for how much in all."""

    agents: int
    demand_per_min: int


def note(connection: Connection, rows: Iterable[tuple[Place, Demand, int]]) -> None:
    """Remember what agents have asked for, and when."""
    values = [{**place._asdict(), **row._asdict(), "seen_at_ms": at_ms} for place, row, at_ms in sorted(rows)]
    if values:
        connection.execute(_upsert(connection.dialect.name), values)


def lately(connection: Connection, places: Iterable[Place], since_ms: int) -> dict[Place, Sequence[Demand]]:
    """Who has asked of these allowances since then."""
    ordered = sorted(set(places))
    query = _lately(connection.dialect.name)
    found: dict[Place, list[Demand]] = {}
    for start in range(0, len(ordered), CHUNK):
        parameters: dict[str, str | int] = {**as_rows(ordered[start : start + CHUNK]), "since_ms": since_ms}
        for row in connection.execute(query, parameters):
            found.setdefault(Place(*row[:3]), []).append(Demand(*row[3:]))
    return dict(found)


@cache
def _lately(dialect: str) -> Select[Any]:
    table = wanted(dialect, _PLACE)
    return (
        select(*_PLACE, demands.c.agent, demands.c.demand_per_min, demands.c.typical)
        .select_from(table.join(demands, and_(*(col == table.c[col.name] for col in _PLACE))))
        .where(demands.c.seen_at_ms >= bindparam("since_ms"))
    )


def parts(
    connection: Connection, places: Iterable[Place], apart: Iterable[str], since_ms: int
) -> dict[Place, dict[str, Together]]:
    """What was asked of these allowances since then: by each of these agents, and under ``""`` by all others together.

    Summed in the database: with a thousand agents on one allowance, reading their rows would cost more than all else.
    """
    ordered = sorted(set(places))
    query = _parts(connection.dialect.name)
    parameters: dict[str, str | int] = {**apart_as_rows(apart), "since_ms": since_ms}
    found: dict[Place, dict[str, Together]] = {place: {} for place in ordered}
    for start in range(0, len(ordered), CHUNK):
        for row in connection.execute(query, {**as_rows(ordered[start : start + CHUNK]), **parameters}):
            found[Place(*row[:3])][row[3]] = Together(row[4], int(row[5]))
    return found


@cache
def _parts(dialect: str) -> Select[Any]:
    table, who = wanted(dialect, _PLACE), whose(dialect, demands.c.agent)
    return (
        select(*_PLACE, who, func.count(), func.sum(demands.c.demand_per_min))
        .select_from(table.join(demands, and_(*(col == table.c[col.name] for col in _PLACE))))
        .where(demands.c.seen_at_ms >= bindparam("since_ms"))
        .group_by(*_PLACE, who)
    )


def prune(connection: Connection, before_ms: int) -> int:
    """Forget demands last seen before then."""
    return connection.execute(delete(demands).where(demands.c.seen_at_ms < before_ms)).rowcount


@cache
def _upsert(dialect: str) -> Insert:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(demands)
    news = {name: statement.excluded[name] for name in ("demand_per_min", "typical", "seen_at_ms")}
    return statement.on_conflict_do_update(index_elements=[*_PLACE, demands.c.agent], set_=news)
