"""Customers: who they are, which version their entitlement has, and the facts it is resolved from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, func, insert, literal_column, select, update

from control_plane.store.subscription_tables import documents
from control_plane.store.tables import customers, meters
from control_plane.store.wanted import CHUNK, as_rows, wanted


class Customer(NamedTuple):
    """Who it is. ``version`` is that of its entitlement: it grows with every change of it."""

    customer: str
    name: str
    version: int
    created_at_ms: int
    archived_at_ms: int | None


_CUSTOMER = (
    customers.c.customer,
    customers.c.name,
    customers.c.version,
    customers.c.created_at_ms,
    customers.c.archived_at_ms,
)


_DUE = (
    select(customers.c.customer)
    .where(customers.c.changes_at_ms <= bindparam("now_ms"))
    .order_by(customers.c.changes_at_ms)
    .limit(bindparam("count"))
)


class HolderRow(NamedTuple):
    """What a customer may use, as it was resolved last.

    Attributes:
        body: text of a ``core.entitlements.Document``; ``None``: nobody has resolved it yet.
        changes_at_ms: when it may change by itself. ends_at_ms: when everything will be refused.
        anchor_ms, zone, period_months: its calendar.
        closed_until_ms: before when its billing periods are closed.
        meters: of the whole catalog, those that are reported or made by rates, with commas between; ``None``: none.
    """

    customer: str
    version: int
    changes_at_ms: int | None
    ends_at_ms: int | None
    anchor_ms: int
    zone: str
    period_months: int
    body: str | None
    closed_until_ms: int = 0
    meters: str | None = None


class Resolved(NamedTuple):
    """What was resolved of a customer, and what it is to be read with; as in :class:`HolderRow`."""

    customer: str
    version: int
    document: str | None
    changes_at_ms: int | None
    ends_at_ms: int | None
    anchor_ms: int
    zone: str
    period_months: int


def find(connection: Connection, customer: str, *, lock: bool = False) -> Customer | None:
    """One customer. ``lock``: hold its row until the transaction ends, so that changes to it happen one by one."""
    query = select(*_CUSTOMER).where(customers.c.customer == customer)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return Customer(*row) if row else None


def after(connection: Connection, customer: str, count: int) -> list[Customer]:
    """Up to ``count`` customers in order of name, beginning after ``customer``."""
    query = select(*_CUSTOMER).where(customers.c.customer > customer).order_by(customers.c.customer).limit(count)
    return [Customer(*row) for row in connection.execute(query)]


def known(connection: Connection, names: Iterable[str]) -> list[Customer]:
    """Those of these customers that there are."""
    ordered = sorted(set(names))
    query = _known(connection.dialect.name)
    found: list[Customer] = []
    for start in range(0, len(ordered), CHUNK):
        rows = connection.execute(query, as_rows([(name,) for name in ordered[start : start + CHUNK]]))
        found += [Customer(*row) for row in rows]
    return found


@cache
def _known(dialect: str) -> Select[Any]:
    table = wanted(dialect, (customers.c.customer,))
    return select(*_CUSTOMER).select_from(table.join(customers, customers.c.customer == table.c.customer))


def count(connection: Connection) -> int:
    """How many there are."""
    return int(connection.execute(select(func.count()).select_from(customers)).scalar_one())


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
    # In the same statement: every sync looks, and asking twice would cost twice.
    join_names = func.group_concat if dialect == "sqlite" else func.string_agg
    reported = join_names(meters.c.meter, literal_column("','"))
    catalog_meters = select(reported).where(meters.c.aggregate == "").scalar_subquery()
    return select(
        customers.c.customer,
        customers.c.version,
        customers.c.changes_at_ms,
        customers.c.ends_at_ms,
        customers.c.anchor_ms,
        customers.c.zone,
        customers.c.period_months,
        documents.c.body,
        customers.c.closed_until_ms,
        catalog_meters,
    ).select_from(named.outerjoin(documents, documents.c.document == customers.c.document))


def due(connection: Connection, now_ms: int, count: int) -> list[str]:
    """Up to ``count`` customers whose entitlement may have changed by itself, the longest due first."""
    return list(connection.execute(_DUE, {"now_ms": now_ms, "count": count}).scalars())


def make_due(connection: Connection, *, of_all: bool = False, names: Iterable[str] = ()) -> None:
    """The entitlements of these customers, or of all, are to be resolved anew."""
    changed = update(customers).values(changes_at_ms=0)
    if of_all:
        connection.execute(changed.where(customers.c.document.is_not(None)))
        return
    ordered = sorted(set(names))
    for start in range(0, len(ordered), CHUNK):
        connection.execute(changed.where(customers.c.customer.in_(ordered[start : start + CHUNK])))


def resolved(connection: Connection, names: Iterable[str]) -> list[Resolved]:
    """What was resolved of these customers."""
    ordered = sorted(set(names))
    columns = [customers.c[name] for name in Resolved._fields]
    found: list[Resolved] = []
    for start in range(0, len(ordered), CHUNK):
        query = select(*columns).where(customers.c.customer.in_(ordered[start : start + CHUNK]))
        found += [Resolved(*row) for row in connection.execute(query)]
    return found


def hold(connection: Connection, names: Iterable[str]) -> None:
    """Hold the rows of these customers until the transaction ends, in order, so that changes happen one by one."""
    query = select(customers.c.customer).where(customers.c.customer.in_(sorted(set(names))))
    connection.execute(query.order_by(customers.c.customer).with_for_update()).all()


def put_resolved(connection: Connection, resolved: Resolved) -> None:
    """Keep what was resolved."""
    values = resolved._asdict()
    connection.execute(update(customers).where(customers.c.customer == values.pop("customer")).values(**values))
