"""Overrides: what single customers have otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, insert, select, update

from control_plane.store.subscription_tables import overrides
from control_plane.store.wanted import CHUNK, as_rows, wanted


class OverrideRow(NamedTuple):
    """One override; ``body`` is the text of a ``core.overrides.OverrideBody``."""

    customer: str
    override: str
    serial: int
    body: str
    reason: str
    actor: str
    made_at_ms: int
    from_ms: int
    until_ms: int | None


def of(connection: Connection, names: Iterable[str]) -> dict[str, list[OverrideRow]]:
    """Every override of these customers, ended ones included, by customer."""
    ordered = sorted(set(names))
    found: dict[str, list[OverrideRow]] = {}
    for start in range(0, len(ordered), CHUNK):
        wanted_rows = as_rows([(name,) for name in ordered[start : start + CHUNK]])
        for row in connection.execute(_of(connection.dialect.name), wanted_rows):
            found.setdefault(row.customer, []).append(OverrideRow(*row))
    return found


@cache
def _of(dialect: str) -> Select[Any]:
    table = wanted(dialect, (overrides.c.customer,))
    return select(overrides).select_from(table.join(overrides, overrides.c.customer == table.c.customer))


def find(connection: Connection, customer: str, override: str) -> OverrideRow | None:
    """One override."""
    query = select(overrides).where(overrides.c.customer == customer, overrides.c.override == override)
    row = connection.execute(query).one_or_none()
    return OverrideRow(*row) if row else None


def after(connection: Connection, customer: str, override: str, count: int) -> list[OverrideRow]:
    """Up to ``count`` of a customer's in order of key, beginning after ``override``."""
    query = select(overrides).where(overrides.c.customer == customer, overrides.c.override > override)
    return [OverrideRow(*row) for row in connection.execute(query.order_by(overrides.c.override).limit(count))]


def next_serial(connection: Connection, customer: str) -> int:
    """The number of the override that is made next."""
    newest = select(func.max(overrides.c.serial)).where(overrides.c.customer == customer)
    return (connection.execute(newest).scalar_one() or 0) + 1


def add(connection: Connection, row: OverrideRow) -> None:
    """Make one."""
    connection.execute(insert(overrides).values(**row._asdict()))


def end(connection: Connection, customer: str, override: str, until_ms: int) -> None:
    """It counts no longer than until then."""
    named = update(overrides).where(overrides.c.customer == customer, overrides.c.override == override)
    connection.execute(named.values(until_ms=until_ms))
