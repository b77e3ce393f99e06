"""Sums for showing how allowances stand: counters, and what open leases hold of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, FromClause, Select, and_, bindparam, case, func, select

from control_plane.store.tables import allowances, leases
from control_plane.store.wanted import as_rows, wanted


class Counted(NamedTuple):
    """One allowance: what is charged, and what leases that are not closed have said of themselves.

    Attributes:
        charged: posted and direct; corrections may make it negative.
        settled: used on open leases, with what may have been used there although no event says so.
        in_flight: held by calls in flight.
        lent: all that open leases may still use up to (their caps).
        limbo: the part of that which lost holders may have used without anybody having said so.
    """

    scope_value: str
    charged: int
    settled: int
    in_flight: int
    lent: int
    limbo: int = 0


def counted(
    connection: Connection,
    customer: str,
    counter: str,
    window_start_ms: int,
    *,
    scope_value: str | None = None,
    after: str | None = None,
    count: int = 1,
) -> list[Counted]:
    """Up to ``count`` allowances of one counter and window, in order of scope value.

    Args:
        scope_value: only this one.
        after: only those that come after this one.
    """
    query = _query().where(
        allowances.c.customer == customer,
        allowances.c.counter == counter,
        allowances.c.window_start_ms == window_start_ms,
    )
    query = query.order_by(allowances.c.scope_value).limit(count)
    if scope_value is not None:
        query = query.where(allowances.c.scope_value == scope_value)
    if after is not None:
        query = query.where(allowances.c.scope_value > after)
    return [_counted(row[2:]) for row in connection.execute(query)]


def of_customer(
    connection: Connection, customer: str, places: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], Counted]:
    """The allowances of the customer as a whole, of these counters and beginnings of windows; those that exist."""
    parameters = {**as_rows(places), "customer": customer}
    rows = connection.execute(_of_customer(connection.dialect.name), parameters)
    return {(row[0], row[1]): _counted(row[2:]) for row in rows}


@cache
def _of_customer(dialect: str) -> Select[Any]:
    a = allowances.c
    table = wanted(dialect, (a.counter, a.window_start_ms))
    same = and_(a.counter == table.c.counter, a.window_start_ms == table.c.window_start_ms)
    return _query(table.join(allowances, and_(a.customer == bindparam("customer"), a.scope_value == "", same)))


def _query(of: FromClause = allowances) -> Select[Any]:
    a, b = allowances.c, leases.c
    held = and_(
        b.customer == a.customer,
        b.counter == a.counter,
        b.scope_value == a.scope_value,
        b.window_start_ms == a.window_start_ms,
        b.status != "closed",
    )
    by = (a.counter, a.window_start_ms, a.scope_value)
    return (
        select(
            *by,
            a.posted + a.direct,
            func.coalesce(func.sum(b.settled + b.unreported), 0),
            func.coalesce(func.sum(b.in_flight), 0),
            func.coalesce(func.sum(b.cap), 0),
            func.coalesce(func.sum(case((b.status == "limbo", b.cap - b.settled - b.unreported), else_=0)), 0),
        )
        .select_from(of.outerjoin(leases, held))
        .group_by(*by, a.posted, a.direct)
    )


def _counted(row: Sequence[Any]) -> Counted:
    # PostgreSQL adds 64-bit numbers up to a NUMERIC: no overflow, but not an int either.
    return Counted(row[0], *(int(number) for number in row[1:]))
