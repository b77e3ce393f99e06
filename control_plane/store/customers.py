"""Customers: who they are, which version their entitlement has, and the facts it is resolved from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, insert, select, update

from control_plane.store.tables import customers, plans, subscriptions
from control_plane.store.wanted import CHUNK, as_rows, wanted


class Customer(NamedTuple):
    """One row."""

    customer: str
    name: str
    version: int
    created_at_ms: int
    archived_at_ms: int | None


class HolderRow(NamedTuple):
    """What decides a customer's entitlement; without a subscription the last five are ``None``."""

    customer: str
    version: int
    archived_at_ms: int | None
    plan: str | None
    plan_version: int | None
    status: str | None
    anchor_ms: int | None
    body: str | None


def find(connection: Connection, customer: str, *, lock: bool = False) -> Customer | None:
    """One customer. ``lock``: hold its row until the transaction ends, so that changes to it happen one by one."""
    query = select(customers).where(customers.c.customer == customer)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return Customer(*row) if row else None


def after(connection: Connection, customer: str, count: int) -> list[Customer]:
    """Up to ``count`` customers in order of name, beginning after ``customer``."""
    query = select(customers).where(customers.c.customer > customer).order_by(customers.c.customer).limit(count)
    return [Customer(*row) for row in connection.execute(query)]


def add(connection: Connection, customer: str, name: str, now_ms: int) -> None:
    """A new customer, at version 1."""
    connection.execute(
        insert(customers).values(customer=customer, name=name, version=1, created_at_ms=now_ms, archived_at_ms=None)
    )


def rename(connection: Connection, customer: str, name: str) -> None:
    """Give it another display name."""
    connection.execute(update(customers).where(customers.c.customer == customer).values(name=name))


def set_archived(connection: Connection, customer: str, archived_at_ms: int | None) -> None:
    """Archive it, or with ``None`` bring it back."""
    connection.execute(update(customers).where(customers.c.customer == customer).values(archived_at_ms=archived_at_ms))


def bump(connection: Connection, customer: str) -> None:
    """Its entitlement has changed: one version further."""
    connection.execute(
        update(customers).where(customers.c.customer == customer).values(version=customers.c.version + 1)
    )


def holders(connection: Connection, names: Iterable[str]) -> Iterator[HolderRow]:
    """What decides the entitlements of the customers named; unknown ones are left out."""
    ordered = sorted(set(names))
    query = _holders(connection.dialect.name)
    for start in range(0, len(ordered), CHUNK):
        for row in connection.execute(query, as_rows([(name,) for name in ordered[start : start + CHUNK]])):
            yield HolderRow(*row)


@cache
def _holders(dialect: str) -> Select[Any]:
    table = wanted(dialect, (customers.c.customer,))
    named = table.join(customers, customers.c.customer == table.c.customer)
    subscribed = named.outerjoin(subscriptions, subscriptions.c.customer == customers.c.customer)
    published = and_(plans.c.plan == subscriptions.c.plan, plans.c.version == subscriptions.c.plan_version)
    return select(
        customers.c.customer,
        customers.c.version,
        customers.c.archived_at_ms,
        subscriptions.c.plan,
        subscriptions.c.plan_version,
        subscriptions.c.status,
        subscriptions.c.anchor_ms,
        plans.c.body,
    ).select_from(subscribed.outerjoin(plans, published))
