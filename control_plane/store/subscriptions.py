"""Subscriptions: every change of one, past and to come; what it is at an instant is their fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, case, func, insert, select, update

from control_plane.store.subscription_tables import subscription_changes
from control_plane.store.wanted import CHUNK, as_rows, wanted


class ChangeRow(NamedTuple):
    """From ``from_ms`` on, a track has a value (JSON). ``replaced_at_ms``: when something else was arranged instead."""

    change: int
    customer: str
    track: str
    value: str
    from_ms: int
    cause: str
    actor: str
    recorded_at_ms: int
    replaced_at_ms: int | None


def of(connection: Connection, names: Iterable[str]) -> dict[str, list[ChangeRow]]:
    """What stands of the subscriptions of these customers, by customer; those without one are left out."""
    ordered = sorted(set(names))
    found: dict[str, list[ChangeRow]] = {}
    for start in range(0, len(ordered), CHUNK):
        wanted_rows = as_rows([(name,) for name in ordered[start : start + CHUNK]])
        for row in connection.execute(_of(connection.dialect.name), wanted_rows):
            found.setdefault(row.customer, []).append(ChangeRow(*row))
    return found


@cache
def _of(dialect: str) -> Select[Any]:
    table = wanted(dialect, (subscription_changes.c.customer,))
    joined = table.join(subscription_changes, subscription_changes.c.customer == table.c.customer)
    standing = subscription_changes.c.replaced_at_ms.is_(None)
    return select(subscription_changes).select_from(joined).where(standing).order_by(subscription_changes.c.change)


COUNTED = ("plan", "add_ons", "trial", "payment", "pause", "cancellation", "term")


def counts(connection: Connection, now_ms: int) -> Iterator[tuple[dict[str, str], int]]:
    """What the tracks of subscriptions say now (JSON, by track), and how many customers say the same."""
    c = subscription_changes.c
    order = func.row_number().over(partition_by=(c.customer, c.track), order_by=(c.from_ms.desc(), c.change.desc()))
    begun = c.replaced_at_ms.is_(None) & (c.from_ms <= now_ms) & c.track.in_(COUNTED)
    ranked = select(c.customer, c.track, c.value, order.label("at")).where(begun).subquery()
    tracks = [func.max(case((ranked.c.track == track, ranked.c.value))).label(track) for track in COUNTED]
    one_each = select(*tracks).where(ranked.c.at == 1).group_by(ranked.c.customer).subquery()
    columns = [one_each.c[track] for track in COUNTED]
    for row in connection.execute(select(*columns, func.count()).group_by(*columns)):
        yield {track: value for track, value in zip(COUNTED, row[:-1], strict=True) if value is not None}, row[-1]


def that_chose(connection: Connection, plan: str, after: str, count: int) -> list[str]:
    """Up to ``count`` customers, in order of id, for whom a plan was or will be chosen at some time."""
    return that_named(connection, "plan", plan, after, count)


def that_named(connection: Connection, track: str, key: str, after: str, count: int) -> list[str]:
    """The same for a plan (track ``plan``) or an add-on (track ``add_ons``)."""
    c = subscription_changes.c
    query = select(c.customer).distinct().where(c.track == track, c.replaced_at_ms.is_(None), c.customer > after)
    if track == "plan":
        named = c.value.startswith(f'["{key}",', autoescape=True)
    else:
        named = c.value.contains(f'"add_on":"{key}",', autoescape=True)
    return list(connection.execute(query.where(named).order_by(c.customer).limit(count)).scalars())


def caused(connection: Connection, names: Iterable[str], cause: str) -> set[str]:
    """Those of these customers of whose subscription anything was ever changed by this cause."""
    ordered = sorted(set(names))
    c = subscription_changes.c
    found: set[str] = set()
    for start in range(0, len(ordered), CHUNK):
        query = select(c.customer).where(c.customer.in_(ordered[start : start + CHUNK]), c.cause == cause)
        found |= set(connection.execute(query.distinct()).scalars())
    return found


def history(connection: Connection, customer: str, after: int, count: int) -> list[ChangeRow]:
    """Up to ``count`` changes in the order in which they were made, replaced ones included, beginning after one."""
    query = select(subscription_changes).where(
        subscription_changes.c.customer == customer, subscription_changes.c.change > after
    )
    return [ChangeRow(*row) for row in connection.execute(query.order_by(subscription_changes.c.change).limit(count))]


def add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Write changes down, in their order."""
    for row in rows:  # one by one: their numbers say which was said later
        connection.execute(insert(subscription_changes).values(**row))


def replace(connection: Connection, changes: Sequence[int], now_ms: int) -> None:
    """Something else was arranged instead of these."""
    if changes:
        changed = update(subscription_changes).where(subscription_changes.c.change.in_(changes))
        connection.execute(changed.values(replaced_at_ms=now_ms))
