"""Sums for showing how allowances stand: counters, and what open leases hold of them."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, and_, case, func, select

from control_plane.store.tables import allowances, leases


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
    a, b = allowances.c, leases.c
    held = and_(
        b.customer == a.customer,
        b.counter == a.counter,
        b.scope_value == a.scope_value,
        b.window_start_ms == a.window_start_ms,
        b.status != "closed",
    )
    query = (
        select(
            a.scope_value,
            a.posted + a.direct,
            func.coalesce(func.sum(b.settled + b.unreported), 0),
            func.coalesce(func.sum(b.in_flight), 0),
            func.coalesce(func.sum(b.cap), 0),
            func.coalesce(func.sum(case((b.status == "limbo", b.cap - b.settled - b.unreported), else_=0)), 0),
        )
        .select_from(allowances.outerjoin(leases, held))
        .where(a.customer == customer, a.counter == counter, a.window_start_ms == window_start_ms)
        .group_by(a.scope_value, a.posted, a.direct)
        .order_by(a.scope_value)
        .limit(count)
    )
    if scope_value is not None:
        query = query.where(a.scope_value == scope_value)
    if after is not None:
        query = query.where(a.scope_value > after)
    # PostgreSQL adds 64-bit numbers up to a NUMERIC: no overflow, but not an int either.
    return [Counted(row[0], *(int(number) for number in row[1:])) for row in connection.execute(query)]
