"""Billing periods that are closed, events that were adjusted for them, and what statements are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, case, func, insert, select, update

from control_plane.store.allowances import Key
from control_plane.store.correction_tables import adjustments, billing_periods
from control_plane.store.credit_tables import credit_transfers
from control_plane.store.credits import USED
from control_plane.store.tables import allowances, customers, leases


class PeriodRow(NamedTuple):
    """One closed period; see the table."""

    customer: str
    start_ms: int
    end_ms: int
    closed_at_ms: int
    actor: str
    statement: str


class Adjustment(NamedTuple):
    """One event that counts later than it happened, because its own period is closed."""

    customer: str
    event: str
    own_ms: int
    counted_ms: int
    at_ms: int
    amounts: Mapping[str, int]


class Over(NamedTuple):
    """One allowance that is charged more than its amount."""

    key: Key
    window_end_ms: int
    charged: int


def find(connection: Connection, customer: str, start_ms: int) -> PeriodRow | None:
    """One closed period."""
    same = (billing_periods.c.customer == customer) & (billing_periods.c.start_ms == start_ms)
    row = connection.execute(select(billing_periods).where(same)).one_or_none()
    return PeriodRow(*row) if row else None


def newest(connection: Connection, customer: str) -> PeriodRow | None:
    """The last closed period of a customer."""
    query = select(billing_periods).where(billing_periods.c.customer == customer)
    row = connection.execute(query.order_by(billing_periods.c.start_ms.desc()).limit(1)).one_or_none()
    return PeriodRow(*row) if row else None


def after(connection: Connection, customer: str, start_ms: int, count: int) -> list[PeriodRow]:
    """Up to ``count`` closed periods of a customer in order of time, beginning after this one."""
    query = select(billing_periods).where(billing_periods.c.customer == customer, billing_periods.c.start_ms > start_ms)
    return [PeriodRow(*row) for row in connection.execute(query.order_by(billing_periods.c.start_ms).limit(count))]


def close(connection: Connection, row: PeriodRow) -> None:
    """Close a period: what happened before its end counts from there on."""
    connection.execute(insert(billing_periods).values(**row._asdict()))
    named = update(customers).where(customers.c.customer == row.customer)
    connection.execute(named.values(closed_until_ms=row.end_ms))


def closed_until(connection: Connection, customer: str) -> int:
    """Before when a customer's periods are closed; 0: none is."""
    query = select(customers.c.closed_until_ms).where(customers.c.customer == customer)
    return int(connection.execute(query).scalar() or 0)


def adjust(connection: Connection, rows: Sequence[Adjustment]) -> None:
    """Remember events that were adjusted."""
    if rows:
        connection.execute(insert(adjustments), [{**row._asdict(), "amounts": json.dumps(row.amounts)} for row in rows])


def counted_at(connection: Connection, customer: str, event: str) -> int | None:
    """When an event that was adjusted counts; ``None``: it was not."""
    same = (adjustments.c.customer == customer) & (adjustments.c.event == event)
    found: int | None = connection.execute(select(adjustments.c.counted_ms).where(same)).scalar_one_or_none()
    return found


def adjusted(connection: Connection, customer: str, from_ms: int, to_ms: int, count: int) -> list[Adjustment]:
    """Up to ``count`` events that were adjusted and count in ``from_ms <= t < to_ms``, in order of id."""
    c = adjustments.c
    query = select(adjustments).where(c.customer == customer, c.counted_ms >= from_ms, c.counted_ms < to_ms)
    rows = connection.execute(query.order_by(c.event).limit(count))
    return [
        Adjustment(row.customer, row.event, row.own_ms, row.counted_ms, row.at_ms, json.loads(row.amounts))
        for row in rows
    ]


def count_adjusted(connection: Connection, customer: str, from_ms: int, to_ms: int) -> int:
    """How many those are."""
    c = adjustments.c
    query = select(func.count()).where(c.customer == customer, c.counted_ms >= from_ms, c.counted_ms < to_ms)
    return int(connection.execute(query).scalar_one())


def charged_over(
    connection: Connection, customer: str, counter: str, amount: int, ends: tuple[int, int], count: int
) -> list[Over]:
    """Up to ``count`` allowances of a counter that are charged more than an amount, in windows that end after the first
    instant and up to the second."""
    a = allowances.c
    query = select(a.customer, a.counter, a.scope_value, a.window_start_ms, a.window_end_ms, a.posted + a.direct).where(
        a.customer == customer, a.counter == counter, a.window_end_ms > ends[0], a.window_end_ms <= ends[1]
    )
    query = query.where(a.posted + a.direct > amount).order_by(a.scope_value, a.window_start_ms).limit(count)
    return [Over(Key(*row[:4]), row[4], int(row[5])) for row in connection.execute(query)]


def open_leases(connection: Connection, customer: str, ends: tuple[int, int]) -> int:
    """How many leases are not closed in windows that end after the first instant and up to the second."""
    a, b = allowances.c, leases.c
    held = (
        (b.customer == a.customer)
        & (b.counter == a.counter)
        & (b.scope_value == a.scope_value)
        & (b.window_start_ms == a.window_start_ms)
        & (b.status != "closed")
    )
    query = select(func.count()).select_from(allowances.join(leases, held))
    within = (a.customer == customer) & (a.window_end_ms > ends[0]) & (a.window_end_ms <= ends[1])
    return int(connection.execute(query.where(within)).scalar_one())


def credits_burned(connection: Connection, customer: str, from_ms: int, to_ms: int) -> dict[str, int]:
    """Credit that use has burned, less what was given back, booked in ``from_ms <= t < to_ms``; by meter."""
    c = credit_transfers.c
    signed = case((c.to_account == USED, c.amount), (c.from_account == USED, -c.amount), else_=0)
    query = select(c.meter, func.sum(signed)).where(c.customer == customer, c.at_ms >= from_ms, c.at_ms < to_ms)
    return {row[0]: int(row[1]) for row in connection.execute(query.group_by(c.meter).order_by(c.meter))}
