"""Notices, a numbered feed; and which thresholds are crossed, so that each crossing is told once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, delete, insert, select

from control_plane.store.allowances import Key
from control_plane.store.changes import keep_in_line
from control_plane.store.correction_tables import crossings, notices
from control_plane.store.wanted import CHUNK, as_rows, wanted

_KEY = (crossings.c.customer, crossings.c.counter, crossings.c.scope_value, crossings.c.window_start_ms)


class Notice(NamedTuple):
    """One to be written."""

    customer: str
    kind: str
    body: Mapping[str, object]


class Numbered(NamedTuple):
    """One of the feed."""

    notice: int
    customer: str
    kind: str
    body: Any
    at_ms: int


def append(connection: Connection, rows: Sequence[Notice], now_ms: int) -> None:
    """Write notices, among the last things that a transaction does: others wait, so that numbers are in order of
    commits and no reader passes over one."""
    if rows:
        keep_in_line(connection)
        values = [{**row._asdict(), "body": json.dumps(row.body, sort_keys=True), "at_ms": now_ms} for row in rows]
        connection.execute(insert(notices), values)


def after(
    connection: Connection, notice: int, count: int, *, customer: str | None = None, kind: str | None = None
) -> list[Numbered]:
    """Up to ``count`` notices that came after one, oldest first."""
    query = select(notices).where(notices.c.notice > notice).order_by(notices.c.notice).limit(count)
    if customer is not None:
        query = query.where(notices.c.customer == customer)
    if kind is not None:
        query = query.where(notices.c.kind == kind)
    return [
        Numbered(row.notice, row.customer, row.kind, json.loads(row.body), row.at_ms)
        for row in connection.execute(query)
    ]


class Crossing(NamedTuple):
    """One threshold that an allowance is beyond."""

    key: Key
    percent: int
    window_end_ms: int


def crossings_of(connection: Connection, keys: Iterable[Key]) -> dict[Key, set[int]]:
    """Which thresholds these allowances are known to be beyond."""
    ordered = sorted(set(keys))
    table = wanted(connection.dialect.name, _KEY)
    same = and_(*(col == table.c[col.name] for col in _KEY))
    query = select(*_KEY, crossings.c.percent).select_from(table.join(crossings, same))
    found: dict[Key, set[int]] = {}
    for start in range(0, len(ordered), CHUNK):
        for row in connection.execute(query, as_rows(ordered[start : start + CHUNK])):
            found.setdefault(Key(*row[:4]), set()).add(row.percent)
    return found


def crossed_by(connection: Connection, customer: str, now_ms: int) -> list[Key]:
    """A customer's allowances that are beyond a threshold, in windows that are not over."""
    query = select(*_KEY).where(crossings.c.customer == customer, crossings.c.window_end_ms > now_ms).distinct()
    return [Key(*row) for row in connection.execute(query)]


def cross(connection: Connection, rows: Sequence[Crossing], now_ms: int) -> None:
    """Remember crossings."""
    if rows:
        values = [
            {**row.key._asdict(), "percent": row.percent, "window_end_ms": row.window_end_ms, "at_ms": now_ms}
            for row in rows
        ]
        connection.execute(insert(crossings), values)


def recover(connection: Connection, key: Key, percents: Iterable[int]) -> None:
    """Forget crossings."""
    same = and_(*(col == getattr(key, col.name) for col in _KEY))
    connection.execute(delete(crossings).where(same, crossings.c.percent.in_(sorted(percents))))
