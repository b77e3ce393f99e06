"""Rows that nobody needs any longer: found and removed in small batches, oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, and_, delete, exists, insert, select, tuple_, update

from control_plane.store.allowances import Key
from control_plane.store.correction_tables import crossings, notices, shadow_refusals
from control_plane.store.leases import CLOSED, IS_ALIVE
from control_plane.store.rollups import minutes_since
from control_plane.store.tables import allowances, customers, entries, incarnations, leases
from control_plane.store.usage_tables import minute_rollups, rollup_starts

_ALLOWANCE = ("customer", "counter", "scope_value", "window_start_ms")


class Folded(NamedTuple):
    """A ledger entry that was removed, to be folded into one with others of its kind."""

    key: Key
    kind: str
    amount: int
    released: int
    at_ms: int


def drop_closed_leases(connection: Connection, before_ms: int, count: int) -> int:
    """Remove up to ``count`` leases that were closed, and last heard of, before the instant."""
    old = (
        select(leases.c.customer, leases.c.lease)
        .where(leases.c.status == CLOSED, leases.c.renewed_at_ms < before_ms, leases.c.closed_at_ms < before_ms)
        .order_by(leases.c.renewed_at_ms)
        .limit(count)
    )
    found = [tuple(row) for row in connection.execute(old)]
    if found:
        connection.execute(delete(leases).where(tuple_(leases.c.customer, leases.c.lease).in_(found)))
    return len(found)


def windows_over(connection: Connection, before_ms: int, count: int) -> list[Key]:
    """Up to ``count`` allowances whose window ended before the instant and of which no lease is left."""
    held = exists().where(*(leases.c[name] == allowances.c[name] for name in _ALLOWANCE))
    query = (
        select(*(allowances.c[name] for name in _ALLOWANCE))
        .where(allowances.c.window_end_ms < before_ms, ~held)
        .order_by(allowances.c.window_end_ms)
        .limit(count)
    )
    return sorted(Key(*row) for row in connection.execute(query))


def drop_allowances(connection: Connection, keys: Sequence[Key]) -> None:
    """Remove allowances with their ledger entries, what was told of them, and what they would have refused."""
    for key in keys:
        for table in (entries, crossings, shadow_refusals, allowances):
            connection.execute(delete(table).where(*(table.c[name] == getattr(key, name) for name in _ALLOWANCE)))


def old_entries(
    connection: Connection, after: int, newest: int, before_ms: int, count: int
) -> tuple[list[int], int | None]:
    """Of the next ``count`` ledger entries up to number ``newest``: those written before the instant that belong to no
    lease that is kept.

    Returns: their numbers, and after which the next ones come; ``None`` when there are none as old.
    """
    kept = exists().where(leases.c.customer == entries.c.customer, leases.c.lease == entries.c.lease)
    query = (
        select(entries.c.entry, entries.c.at_ms, kept.label("kept"))
        .where(entries.c.entry > after, entries.c.entry <= newest)
        .order_by(entries.c.entry)
        .limit(count)
    )
    rows = [row for row in connection.execute(query) if row.at_ms < before_ms]
    if not rows:
        return [], None
    return [row.entry for row in rows if not row.kept], rows[-1].entry


def take_entries(connection: Connection, numbers: Sequence[int]) -> list[Folded]:
    """Remove ledger entries, and return what they said; those that somebody else has removed meanwhile are left out."""
    if not numbers:
        return []
    said = delete(entries).where(entries.c.entry.in_(numbers))
    columns = (*(entries.c[name] for name in _ALLOWANCE), entries.c.kind, entries.c.amount, entries.c.released)
    rows = connection.execute(said.returning(*columns, entries.c.at_ms))
    return [Folded(Key(*row[:4]), row.kind, row.amount, row.released, row.at_ms) for row in rows]


def drop_notices(connection: Connection, before_ms: int) -> int:
    """Remove notices written before the instant."""
    return connection.execute(delete(notices).where(notices.c.at_ms < before_ms)).rowcount


def drop_starts(connection: Connection, before_ms: int) -> int:
    """Remove starts of agents that were last heard of before the instant, unless leases of their journal are not closed
    or the journal is in quarantine."""
    alive = exists().where(
        leases.c.agent == incarnations.c.agent,
        leases.c.journal == incarnations.c.journal,
        IS_ALIVE,
    )
    old = and_(incarnations.c.last_seen_at_ms < before_ms, incarnations.c.quarantined.is_(None), ~alive)
    return connection.execute(delete(incarnations).where(old)).rowcount


def cut_minutes(connection: Connection, since_ms: int) -> None:
    """Sums by the minute are whole from this whole hour on; said before any is removed."""
    if since_ms <= minutes_since(connection):
        return
    cut = update(rollup_starts).where(rollup_starts.c.grain == "minute").values(since_ms=since_ms)
    if not connection.execute(cut).rowcount:
        connection.execute(insert(rollup_starts).values(grain="minute", since_ms=since_ms))


def drop_minutes(connection: Connection, after: str, count: int) -> str | None:
    """Remove sums by the minute that are cut off, of the next ``count`` customers.

    Returns: after which customer the next ones come; ``None`` when these were the last.
    """
    query = select(customers.c.customer).where(customers.c.customer > after).order_by(customers.c.customer)
    names = connection.execute(query.limit(count)).scalars().all()
    old = minute_rollups.c.minute_ms < minutes_since(connection)
    connection.execute(delete(minute_rollups).where(minute_rollups.c.customer.in_(names), old))
    return names[-1] if len(names) == count else None
