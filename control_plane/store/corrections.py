"""Corrections by hand: what was ordered under which id, and what came of it."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from control_plane.store.correction_tables import corrections


class CorrectionRow(NamedTuple):
    """One correction; see the table."""

    customer: str
    correction: str
    kind: str
    ordered: str
    outcome: str
    reason: str
    actor: str
    at_ms: int


def find(connection: Connection, customer: str, correction: str) -> CorrectionRow | None:
    """One correction."""
    query = select(corrections).where(corrections.c.customer == customer, corrections.c.correction == correction)
    row = connection.execute(query).one_or_none()
    return CorrectionRow(*row) if row else None


def add(connection: Connection, row: CorrectionRow) -> None:
    """Remember one."""
    connection.execute(insert(corrections).values(**row._asdict()))


def after(connection: Connection, customer: str, correction: str, count: int) -> list[CorrectionRow]:
    """Up to ``count`` of a customer's corrections in order of id, beginning after one."""
    query = select(corrections).where(corrections.c.customer == customer, corrections.c.correction > correction)
    return [CorrectionRow(*row) for row in connection.execute(query.order_by(corrections.c.correction).limit(count))]
