"""Credits: grants, and every movement between their accounts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, insert, select, update

from control_plane.store.credit_tables import credit_transfers, grants
from control_plane.store.tables import allowances, leases
from control_plane.store.wanted import CHUNK, as_rows, wanted

ISSUED, USED, EXPIRED, VOIDED = "issued", "used", "expired", "voided"


class GrantRow(NamedTuple):
    """One grant; see the table."""

    customer: str
    grant: str
    meter: str
    amount: int
    burned: int
    forfeited: int
    from_ms: int
    until_ms: int | None
    priority: int
    category: str
    cost_micros: int
    currency: str
    every: str
    rollover_min: int
    rollover_max: int
    rollover_days: int | None
    source: str
    reason: str
    actor: str
    made_at_ms: int
    voided_at_ms: int | None
    closed: bool


class Transfer(NamedTuple):
    """So much went from one account to another; ``event``: for which use."""

    customer: str
    meter: str
    from_account: str
    to_account: str
    amount: int
    cause: str
    event: str | None
    at_ms: int


class Numbered(NamedTuple):
    """A transfer with its number."""

    transfer: int
    customer: str
    meter: str
    from_account: str
    to_account: str
    amount: int
    cause: str
    event: str | None
    at_ms: int


def account_of(grant: str) -> str:
    """The account of a grant."""
    return f"grant:{grant}"


def open_grants(connection: Connection, names: Iterable[str]) -> list[GrantRow]:
    """Grants of these customers that have not been closed."""
    ordered = sorted(set(names))
    query = _open(connection.dialect.name)
    found: list[GrantRow] = []
    for start in range(0, len(ordered), CHUNK):
        rows = connection.execute(query, as_rows([(name,) for name in ordered[start : start + CHUNK]]))
        found += [GrantRow(*row) for row in rows]
    return found


@cache
def _open(dialect: str) -> Select[Any]:
    table = wanted(dialect, (grants.c.customer,))
    joined = table.join(grants, grants.c.customer == table.c.customer)
    return select(grants).select_from(joined).where(~grants.c.closed)


def closed_burned(connection: Connection, names: Iterable[str]) -> dict[tuple[str, str], int]:
    """What closed grants have given, by customer and meter."""
    ordered = sorted(set(names))
    query = _closed(connection.dialect.name)
    found: dict[tuple[str, str], int] = {}
    for start in range(0, len(ordered), CHUNK):
        rows = connection.execute(query, as_rows([(name,) for name in ordered[start : start + CHUNK]]))
        found |= {(row[0], row[1]): int(row[2]) for row in rows}
    return found


@cache
def _closed(dialect: str) -> Select[Any]:
    table = wanted(dialect, (grants.c.customer,))
    joined = table.join(grants, grants.c.customer == table.c.customer)
    by = (grants.c.customer, grants.c.meter)
    return select(*by, func.sum(grants.c.burned)).select_from(joined).where(grants.c.closed).group_by(*by)


def hold(connection: Connection, customer: str, meter: str, since_ms: int) -> list[GrantRow]:
    """The grants of one balance that are open or ended since then, held until the transaction ends."""
    query = select(grants).where(
        grants.c.customer == customer,
        grants.c.meter == meter,
        (~grants.c.closed) | (grants.c.until_ms >= since_ms),
    )
    return [GrantRow(*row) for row in connection.execute(query.order_by(grants.c.grant_key).with_for_update())]


def burned(connection: Connection, customer: str, meter: str) -> int:
    """What use has burned of all grants of one balance."""
    query = select(func.coalesce(func.sum(grants.c.burned), 0))
    return int(connection.execute(query.where(grants.c.customer == customer, grants.c.meter == meter)).scalar_one())


class Use(NamedTuple):
    """What is known to be used of a counter, and what calls in flight hold of it."""

    used: int
    in_flight: int


def use(connection: Connection, customer: str, counter: str) -> Use:
    """All that was ever used of a counter without windows: charged, and settled on open leases."""
    charged = select(func.coalesce(func.sum(allowances.c.posted + allowances.c.direct), 0)).where(
        allowances.c.customer == customer, allowances.c.counter == counter
    )
    lent = select(func.coalesce(func.sum(leases.c.settled), 0), func.coalesce(func.sum(leases.c.in_flight), 0)).where(
        leases.c.customer == customer, leases.c.counter == counter, leases.c.status != "closed"
    )
    settled, in_flight = connection.execute(lent).one()
    return Use(int(connection.execute(charged).scalar_one()) + int(settled), int(in_flight))


def find(connection: Connection, customer: str, grant: str) -> GrantRow | None:
    """One grant."""
    query = select(grants).where(grants.c.customer == customer, grants.c.grant_key == grant)
    row = connection.execute(query).one_or_none()
    return GrantRow(*row) if row else None


def issued(connection: Connection, customer: str, stem: str) -> list[GrantRow]:
    """Every grant whose id is ``stem`` and a number after a dot."""
    ours = grants.c.grant_key.startswith(f"{stem}.", autoescape=True)
    query = select(grants).where(grants.c.customer == customer, ours)
    found = [GrantRow(*row) for row in connection.execute(query)]
    return [row for row in found if row.grant.removeprefix(f"{stem}.").isdecimal()]


def after(connection: Connection, customer: str, grant: str, count: int) -> list[GrantRow]:
    """Up to ``count`` of a customer's grants in order of id, beginning after one."""
    query = select(grants).where(grants.c.customer == customer, grants.c.grant_key > grant)
    return [GrantRow(*row) for row in connection.execute(query.order_by(grants.c.grant_key).limit(count))]


def add(connection: Connection, row: GrantRow) -> None:
    """Issue one."""
    values = row._asdict()
    connection.execute(insert(grants).values(grant_key=values.pop("grant"), **values))


def change(connection: Connection, row: GrantRow) -> None:
    """What use and time have made of one."""
    named = update(grants).where(grants.c.customer == row.customer, grants.c.grant_key == row.grant)
    moved = ("burned", "forfeited", "until_ms", "voided_at_ms", "closed")
    connection.execute(named.values(**{name: getattr(row, name) for name in moved}))


def move(connection: Connection, rows: Sequence[Transfer]) -> None:
    """Write movements."""
    some = [row._asdict() for row in rows if row.amount]
    if some:
        connection.execute(insert(credit_transfers), some)


def transfers(connection: Connection, customer: str, after: int, count: int) -> list[Numbered]:
    """Up to ``count`` movements of a customer in their order, beginning after one."""
    query = select(credit_transfers).where(credit_transfers.c.customer == customer, credit_transfers.c.transfer > after)
    return [Numbered(*row) for row in connection.execute(query.order_by(credit_transfers.c.transfer).limit(count))]


def folds(connection: Connection) -> dict[tuple[str, str, str], int]:
    """The balance of every account (customer, meter, account), for the audit; they sum to zero."""
    found: dict[tuple[str, str, str], int] = {}
    for column, sign in ((credit_transfers.c.to_account, 1), (credit_transfers.c.from_account, -1)):
        by = (credit_transfers.c.customer, credit_transfers.c.meter, column)
        for row in connection.execute(select(*by, func.sum(credit_transfers.c.amount)).group_by(*by)):
            key = (row[0], row[1], row[2])
            found[key] = found.get(key, 0) + sign * int(row[3])
    return found


def all_rows(connection: Connection) -> list[GrantRow]:
    """Every grant, for the audit."""
    return [GrantRow(*row) for row in connection.execute(select(grants))]
