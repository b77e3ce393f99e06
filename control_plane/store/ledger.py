"""The ledger: every movement on an allowance, append-only; the sums in ``allowances`` are its fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection, Insert, case, func, insert, select

from control_plane.store.allowances import Key
from control_plane.store.spans import EVERYBODY, Span, within
from control_plane.store.tables import entries
from control_plane.store.wanted import CHUNK, as_rows, wanted

GRANT = "grant"
RETURN = "return"
POST = "post"
DIRECT = "direct"

_COLUMNS = [column for column in entries.columns if column is not entries.c.entry]


class Entry(NamedTuple):
    """One movement (see the table): ``amount`` is signed; ``released``: of a post, what it freed."""

    key: Key
    kind: str
    amount: int
    cause: str
    released: int = 0
    lease: str | None = None
    event: str | None = None


class Fold(NamedTuple):
    """What the entries of one allowance and kind sum to."""

    amount: int
    released: int


def append(connection: Connection, rows: Sequence[tuple[Entry, int]]) -> None:
    """Write movements, each with the instant at which it happened."""
    statement = _insert(connection.dialect.name)
    for start in range(0, len(rows), CHUNK):
        connection.execute(statement, as_rows([_values(*row) for row in rows[start : start + CHUNK]]))


def newest(connection: Connection) -> int:
    """The number of the newest movement; 0 where there is none."""
    return int(connection.execute(select(func.coalesce(func.max(entries.c.entry), 0))).scalar_one())


def has(connection: Connection, customer: str, cause: str, event: str) -> bool:
    """Whether there is a movement of this cause and event."""
    same = (entries.c.customer == customer) & (entries.c.cause == cause) & (entries.c.event == event)
    return connection.execute(select(entries.c.entry).where(same).limit(1)).first() is not None


class Standing(NamedTuple):
    """How an allowance stood: charged, and lent."""

    charged: int
    lent: int


def standing_at(connection: Connection, key: Key, at_ms: int) -> Standing:
    """How an allowance stood at an instant, by its movements until then."""
    query = select(
        func.coalesce(func.sum(case((entries.c.kind.in_((POST, DIRECT)), entries.c.amount), else_=0)), 0),
        func.coalesce(
            func.sum(
                case(
                    (entries.c.kind == GRANT, entries.c.amount),
                    (entries.c.kind == RETURN, -entries.c.amount),
                    (entries.c.kind == POST, -entries.c.released),
                    else_=0,
                )
            ),
            0,
        ),
    ).where(
        entries.c.customer == key.customer,
        entries.c.counter == key.counter,
        entries.c.scope_value == key.scope_value,
        entries.c.window_start_ms == key.window_start_ms,
        entries.c.at_ms <= at_ms,
    )
    charged, lent = connection.execute(query).one()
    return Standing(int(charged), int(lent))


def folds(connection: Connection, span: Span = EVERYBODY) -> dict[tuple[Key, str], Fold]:
    """The sums of every allowance and kind, for audits."""
    by = (entries.c.customer, entries.c.counter, entries.c.scope_value, entries.c.window_start_ms, entries.c.kind)
    query = select(*by, func.sum(entries.c.amount), func.sum(entries.c.released))
    query = query.where(*within(entries.c.customer, span)).group_by(*by)
    return {(Key(*row[:4]), row[4]): Fold(int(row[5]), int(row[6])) for row in connection.execute(query)}


class LeaseSum(NamedTuple):
    """What the entries of one lease, kind and cause sum to."""

    customer: str
    lease: str
    kind: str
    cause: str
    amount: int


def of_events(connection: Connection, span: Span, causes: Sequence[str]) -> Iterator[list[Entry]]:
    """Movements that name an event, of these causes, some at a time, for audits."""
    table = entries.c
    key = (table.customer, table.counter, table.scope_value, table.window_start_ms)
    rest = (table.kind, table.amount, table.cause, table.released, table.lease, table.event)
    query = select(*key, *rest).where(*within(table.customer, span), table.event.is_not(None), table.cause.in_(causes))
    for rows in connection.execute(query, execution_options={"yield_per": 1_000}).partitions():
        yield [
            Entry(Key(*row[:4]), row.kind, row.amount, row.cause, row.released, row.lease, row.event) for row in rows
        ]


def lease_sums(connection: Connection, span: Span = EVERYBODY) -> Iterator[LeaseSum]:
    """The sums of every lease, kind and cause, for audits."""
    by = (entries.c.customer, entries.c.lease, entries.c.kind, entries.c.cause)
    query = select(*by, func.sum(entries.c.amount)).where(entries.c.lease.is_not(None))
    query = query.where(*within(entries.c.customer, span)).group_by(*by)
    for row in connection.execute(query):
        yield LeaseSum(*row[:4], amount=int(row[4]))


def keys_with_cause(connection: Connection, cause: str, span: Span = EVERYBODY) -> set[Key]:
    """Allowances that have an entry of this cause."""
    by = (entries.c.customer, entries.c.counter, entries.c.scope_value, entries.c.window_start_ms)
    query = select(*by).where(*within(entries.c.customer, span), entries.c.cause == cause).distinct()
    return {Key(*row) for row in connection.execute(query)}


def _values(row: Entry, at_ms: int) -> list[str | int | None]:
    return [*row.key, row.kind, row.amount, row.released, row.cause, row.lease, row.event, at_ms]


@cache
def _insert(dialect: str) -> Insert:
    """Many rows as one parameter: preparing each by itself costs more than adding it."""
    table = wanted(dialect, _COLUMNS)
    return insert(entries).from_select(_COLUMNS, select(table))
