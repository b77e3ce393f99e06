"""The change feed that hanging watches read: something about a customer, or about an agent's leases, is new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, text

from control_plane.store.tables import changes

ENTITLEMENT = "entitlement"
RECALL = "recall"
RETURNED = "returned"

# Any constant will do, as long as it stays.
_FEED_LOCK = 7_031_002


class Change(NamedTuple):
    """One row to be written. ``agent``: of a recall, whose leases are wanted."""

    customer: str
    kind: str
    agent: str | None = None


class Numbered(NamedTuple):
    """One row of the feed."""

    change: int
    customer: str
    kind: str
    agent: str | None


class Bounds(NamedTuple):
    """The oldest row that is kept and the newest that was ever written; 0 where there is none."""

    oldest: int
    newest: int


def keep_in_line(connection: Connection) -> None:
    """Let nobody else write to a numbered feed until this transaction ends (PostgreSQL; on SQLite nobody can). One lock
    for all feeds, so that no two transactions wait for each other's."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _FEED_LOCK})


def append(connection: Connection, rows: Sequence[Change], now_ms: int) -> None:
    """Write rows, as the last thing a transaction does.

    On PostgreSQL numbers are drawn before the commit, so two writers could commit in the other order and a reader
    would pass over the smaller number for ever. The lock, held to the end of the transaction, keeps them in line.
    """
    if not rows:
        return
    keep_in_line(connection)
    connection.execute(insert(changes), [{**row._asdict(), "at_ms": now_ms} for row in rows])


_AFTER = (
    select(changes.c.change, changes.c.customer, changes.c.kind, changes.c.agent)
    .where(changes.c.change > bindparam("after"))
    .order_by(changes.c.change)
    .limit(bindparam("count"))
)  # made once: every replica asks it ten times a second


def after(connection: Connection, change: int, count: int) -> list[Numbered]:
    """Up to ``count`` rows that came after ``change``, oldest first."""
    return [Numbered(*row) for row in connection.execute(_AFTER, {"after": change, "count": count})]


def bounds(connection: Connection) -> Bounds:
    """Which rows are kept."""
    oldest, newest = connection.execute(select(func.min(changes.c.change), func.max(changes.c.change))).one()
    return Bounds(oldest or 0, newest or 0)


def prune(connection: Connection, before_ms: int) -> int:
    """Forget rows written before ``before_ms``, but never the newest: it says how far the feed has come."""
    newest = select(func.max(changes.c.change)).scalar_subquery()
    return connection.execute(delete(changes).where(changes.c.at_ms < before_ms, changes.c.change < newest)).rowcount
