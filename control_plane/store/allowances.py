"""Allowances: the counters that leases are cut from, one row for each limit, scope value and window in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, Update, and_, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from control_plane.store.spans import EVERYBODY, Span, within
from control_plane.store.tables import allowances
from control_plane.store.wanted import CHUNK, as_rows, wanted

SUM_MAX = 2**61
"""Sums are kept within this, far from the end of 64 bits, whatever absurd amounts are reported."""

_SUMS = ("posted", "direct", "outstanding")
_STATES = ("recalled_at_ms", "level", "level_at_ms", "burst_lent", "rate", "burst")
_KEY = (allowances.c.customer, allowances.c.counter, allowances.c.scope_value, allowances.c.window_start_ms)


class Key(NamedTuple):
    """Which allowance. The order of keys is the order in which rows are locked, everywhere."""

    customer: str
    counter: str
    scope_value: str
    window_start_ms: int


class Row(NamedTuple):
    """One row. The last five are of rates only (see the table)."""

    key: Key
    window_end_ms: int
    posted: int
    direct: int
    outstanding: int
    recalled_at_ms: int
    level: int = 0
    level_at_ms: int = 0
    burst_lent: int = 0
    rate: int = 0
    burst: int = 0


def find(connection: Connection, keys: Iterable[Key], *, lock: bool = False) -> Iterator[Row]:
    """The rows that exist, in order of key; with ``lock``, held until the transaction ends."""
    ordered = sorted(set(keys))
    query = _find(connection.dialect.name, lock=lock)
    for start in range(0, len(ordered), CHUNK):
        for row in connection.execute(query, as_rows(ordered[start : start + CHUNK])):
            yield _row(tuple(row))


def add_missing(connection: Connection, rows: Sequence[Row]) -> set[Key]:
    """Add rows, leaving alone those that somebody else has added meanwhile; returns which were added."""
    if not rows:
        return set()
    ordered = sorted(rows, key=lambda row: row.key)
    return {
        Key(*row) for row in connection.execute(_insert(connection.dialect.name), [_values(row) for row in ordered])
    }


def save(connection: Connection, rows: Sequence[Row]) -> None:
    """Write back rows that this transaction has locked."""
    if rows:
        connection.execute(_update(), [_saved(row) for row in rows])


def empty_buckets(connection: Connection, now_ms: int) -> None:
    """Nothing is saved up of any rate: what is known of it is older than what was admitted since."""
    filled = allowances.c.level_at_ms > 0
    connection.execute(update(allowances).where(filled).values(level=0, level_at_ms=now_ms))


def all_rows(connection: Connection, span: Span = EVERYBODY) -> Iterator[Row]:
    """Every allowance, for audits."""
    for row in connection.execute(select(allowances).where(*within(allowances.c.customer, span)).order_by(*_KEY)):
        yield _row(tuple(row))


@cache
def _find(dialect: str, *, lock: bool) -> Select[Any]:
    table = wanted(dialect, _KEY)
    same = and_(*(col == table.c[col.name] for col in _KEY))
    query = select(allowances).select_from(table.join(allowances, same)).order_by(*_KEY)
    return query.with_for_update(of=allowances) if lock else query


@cache
def _update() -> Update:
    return (
        update(allowances)
        .where(and_(*(col == bindparam(f"k_{col.name}") for col in _KEY)))
        .values({name: bindparam(f"v_{name}") for name in (*_SUMS, *_STATES)})
    )


def _row(row: tuple[object, ...]) -> Row:
    return Row(Key(*row[:4]), *row[4:])  # type: ignore[arg-type]


@cache
def _insert(dialect: str) -> ReturningInsert[Any]:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return make(allowances).on_conflict_do_nothing(index_elements=_KEY).returning(*_KEY)


def _values(row: Row) -> dict[str, str | int]:
    return {**row.key._asdict(), **{name: value for name, value in row._asdict().items() if name != "key"}}


def _saved(row: Row) -> dict[str, str | int]:
    values = row._asdict()
    bounded = {f"v_{name}": max(-SUM_MAX, min(SUM_MAX, values[name])) for name in _SUMS}
    keys = {f"k_{name}": value for name, value in row.key._asdict().items()}
    return {**keys, **bounded, **{f"v_{name}": values[name] for name in _STATES}}
