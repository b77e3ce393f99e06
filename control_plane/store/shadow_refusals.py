"""What limits in shadow would have refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection, Insert, case, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from control_plane.store.allowances import Key
from control_plane.store.correction_tables import shadow_refusals

_KEY = [shadow_refusals.c[name] for name in Key._fields]


class Refused(NamedTuple):
    """What one allowance would have refused."""

    key: Key
    window_end_ms: int
    limit_key: str
    events: int
    quantity: int
    first_at_ms: int
    last_at_ms: int


def add(connection: Connection, rows: Sequence[Refused]) -> None:
    """Add to what is known; in order of key, so that two transactions never wait for each other."""
    if rows:
        values = [{**row.key._asdict(), **_rest(row)} for row in sorted(rows)]
        connection.execute(_upsert(connection.dialect.name), values)


def after(connection: Connection, customer: str | None, position: Key | None, count: int) -> list[Refused]:
    """Up to ``count`` rows in order of key, of one customer or of all, beginning after one."""
    query = select(shadow_refusals).order_by(*_KEY).limit(count)
    if customer is not None:
        query = query.where(shadow_refusals.c.customer == customer)
    if position is not None:
        query = query.where(tuple_(*_KEY) > tuple_(*position))
    return [Refused(Key(*row[:4]), *row[4:]) for row in connection.execute(query)]


def _rest(row: Refused) -> dict[str, str | int]:
    values: dict[str, str | int] = {name: value for name, value in row._asdict().items() if name != "key"}
    return values


@cache
def _upsert(dialect: str) -> Insert:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(shadow_refusals)
    new, old = statement.excluded, shadow_refusals.c
    return statement.on_conflict_do_update(
        index_elements=_KEY,
        set_={
            "limit_key": new.limit_key,
            "window_end_ms": new.window_end_ms,
            "events": old.events + new.events,
            "quantity": old.quantity + new.quantity,
            "first_at_ms": case((new.first_at_ms < old.first_at_ms, new.first_at_ms), else_=old.first_at_ms),
            "last_at_ms": case((new.last_at_ms > old.last_at_ms, new.last_at_ms), else_=old.last_at_ms),
        },
    )
