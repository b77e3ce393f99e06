"""Subscriptions: one a customer for now; what was before is in the audit log."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from control_plane.store.tables import subscriptions


class SubscriptionRow(NamedTuple):
    """Which plan version a customer has. ``anchor_ms``: where its billing periods begin; it never moves."""

    customer: str
    plan: str
    plan_version: int
    status: str
    anchor_ms: int
    started_at_ms: int
    changed_at_ms: int


def find(connection: Connection, customer: str) -> SubscriptionRow | None:
    """The customer's subscription."""
    row = connection.execute(select(subscriptions).where(subscriptions.c.customer == customer)).one_or_none()
    return SubscriptionRow(*row) if row else None


def add(connection: Connection, row: SubscriptionRow) -> None:
    """A customer's first subscription."""
    connection.execute(insert(subscriptions).values(**row._asdict()))


def replace(connection: Connection, row: SubscriptionRow) -> None:
    """Another plan, version or status from now on."""
    changed = update(subscriptions).where(subscriptions.c.customer == row.customer)
    connection.execute(changed.values(**row._asdict()))
