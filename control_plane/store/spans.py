"""Spans of customers, in the database's order of their names: what audits read at a time."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, func, select

from control_plane.store.tables import customers, events


class Span(NamedTuple):
    """Customers that come after one name, up to and with another (``None``: all that follow); or just one."""

    after: str = ""
    upto: str | None = None
    only: str | None = None


EVERYBODY = Span()


def within(column: Column[str], span: Span) -> list[ColumnElement[bool]]:
    """Conditions: the column names a customer of the span."""
    if span.only is not None:
        return [column == span.only]
    return [column > span.after, *([] if span.upto is None else [column <= span.upto])]


def following(connection: Connection, after: str, count: int, events_max: int) -> tuple[Span, int]:
    """The next customers after a name: at most ``count``, and fewer while they have more than ``events_max`` events.

    Returns: the span, and how many known customers are in it; the last span has no end, so that nothing is left out.
    """
    query = select(customers.c.customer).where(customers.c.customer > after).order_by(customers.c.customer)
    names = connection.execute(query.limit(count + 1)).scalars().all()
    if len(names) <= count and _events(connection, Span(after), events_max) <= events_max:
        return Span(after), len(names)
    taken = min(count, len(names))
    while taken > 1 and _events(connection, Span(after, names[taken - 1]), events_max) > events_max:
        taken //= 2
    return (Span(after, names[taken - 1]), taken) if taken else (Span(after), 0)


def names(connection: Connection, span: Span) -> list[str]:
    """The known customers of a span."""
    query = select(customers.c.customer).where(*within(customers.c.customer, span)).order_by(customers.c.customer)
    return list(connection.execute(query).scalars())


def edge_ms(connection: Connection, span: Span, from_ms: int, count: int) -> int | None:
    """When the event after the next ``count`` of a span's one customer counts; ``None``: there are no more."""
    query = select(events.c.at_ms).where(*within(events.c.customer, span), events.c.at_ms >= from_ms)
    found = connection.execute(query.order_by(events.c.customer, events.c.at_ms).offset(count).limit(1)).scalar()
    return None if found is None else int(found)


def _events(connection: Connection, span: Span, most: int) -> int:
    """How many events there are, at most one more than ``most``."""
    some = select(events.c.event).where(*within(events.c.customer, span)).limit(most + 1).subquery()
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one())
