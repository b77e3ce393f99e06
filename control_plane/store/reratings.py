"""Re-ratings: what was ordered under which id, and whose usage an order is about."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from control_plane.store.price_tables import reratings
from control_plane.store.subscription_tables import subscription_changes


def ordered(connection: Connection, rerating: str) -> str | None:
    """What was ordered under this id."""
    return connection.execute(select(reratings.c.ordered).where(reratings.c.rerating == rerating)).scalar_one_or_none()


def add(connection: Connection, rerating: str, what: str, now_ms: int) -> None:
    """Remember an order."""
    connection.execute(insert(reratings).values(rerating=rerating, ordered=what, at_ms=now_ms))


def subscribed_after(connection: Connection, after: str, count: int) -> list[str]:
    """Up to ``count`` customers that have a subscription, of whatever status, in order of name, after ``after``."""
    changes = subscription_changes.c
    query = select(changes.customer).where(changes.track == "plan", changes.customer > after).distinct()
    return list(connection.execute(query.order_by(changes.customer).limit(count)).scalars())
