"""Marks leases whose holders are silent, and closes those whose window is long over. Silence alone frees nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from control_plane.core import lease_life
from control_plane.core.lease_life import Status
from control_plane.operations.exchange import CLOCK_MARGIN_MS, LEASE_TTL_MS
from control_plane.operations.keep_books import Books, life_of
from control_plane.operations.learn_again import end_learning
from control_plane.store import leases
from control_plane.store.database import Connection

LIMBO_AFTER_MS = 600_000
CLOSE_AFTER_MS = 600_000
CALL_LIFE_MS_MAX = 24 * 3_600_000
"""The longest that a reservation lives (:data:`protocol.local_messages.TtlMs`)."""

BATCH_MAX = 500

Sweep = Callable[[Connection, int], int]


def free_silent_shares(connection: Connection, now_ms: int) -> int:
    """Shares of rates that nobody has renewed for their term are free again: their holder admits nothing by them any
    longer, whatever it thinks of us. Nothing was used up; what was saved up in them is gone."""
    before_ms = now_ms - LEASE_TTL_MS - CLOCK_MARGIN_MS
    return _free(connection, leases.silent_shares(connection, before_ms, BATCH_MAX), before_ms, now_ms)


def free_silent_slots(connection: Connection, now_ms: int) -> int:
    """Slots of a holder of whom nothing was heard for its term and the longest life of a call are free again: it began
    none on them after its term, and those that it had begun have ended."""
    before_ms = now_ms - LEASE_TTL_MS - CLOCK_MARGIN_MS - CALL_LIFE_MS_MAX
    return _free(connection, leases.silent_slots(connection, before_ms, BATCH_MAX), before_ms, now_ms)


def expire_silent(connection: Connection, now_ms: int) -> int:
    """Leases not heard of for their term are ``expired``: still charged, and open again when their holder speaks.

    Returns: how many there were; at most ``BATCH_MAX`` are looked at.
    """
    before_ms = now_ms - LEASE_TTL_MS - CLOCK_MARGIN_MS
    return _mark(connection, leases.silent(connection, before_ms, BATCH_MAX), before_ms, Status.EXPIRED, now_ms)


def leave_lost_in_limbo(connection: Connection, now_ms: int) -> int:
    """Leases expired for ten minutes are in ``limbo``: charged until their holder speaks or their window ends."""
    before_ms = now_ms - LEASE_TTL_MS - CLOCK_MARGIN_MS - LIMBO_AFTER_MS
    return _mark(connection, leases.lost(connection, before_ms, BATCH_MAX), before_ms, Status.LIMBO, now_ms)


def close_beyond_window(connection: Connection, now_ms: int) -> int:
    """Leases of windows that ended ten minutes ago, of which nobody speaks: rights die with their window, and all of
    them count as used."""
    heard_before_ms = now_ms - LEASE_TTL_MS - CLOCK_MARGIN_MS
    found = leases.beyond_window(connection, now_ms - CLOSE_AFTER_MS, heard_before_ms, BATCH_MAX)
    books, rows = _hold(connection, found, now_ms)
    closing = [row for row in rows if row.status != Status.CLOSED and row.renewed_at_ms < heard_before_ms]
    for row in closing:
        books.move(row, *lease_life.write_off(life_of(row), "window_end"))
    books.save()
    books.publish()
    return len(closing)


SWEEPS: tuple[Sweep, ...] = (
    free_silent_shares,
    free_silent_slots,
    expire_silent,
    leave_lost_in_limbo,
    close_beyond_window,
    end_learning,
)


def _free(connection: Connection, found: list[leases.Row], before_ms: int, now_ms: int) -> int:
    books, rows = _hold(connection, found, now_ms)
    closing = [row for row in rows if row.status != Status.CLOSED and row.renewed_at_ms < before_ms]
    for row in closing:
        books.move(row, *lease_life.close(replace(life_of(row), settled=0, unreported=0), "silent"))
    books.save()
    books.publish()
    return len(closing)


def _mark(connection: Connection, found: list[leases.Row], before_ms: int, status: Status, now_ms: int) -> int:
    books, rows = _hold(connection, found, now_ms)
    marked = [row for row in rows if row.status != Status.CLOSED and row.renewed_at_ms < before_ms]
    for row in marked:
        books.change(row._replace(status=status.value))
    books.save()
    return len(marked)


def _hold(connection: Connection, found: list[leases.Row], now_ms: int) -> tuple[Books, list[leases.Row]]:
    """Hold the leases' allowances, and look at the leases once more."""
    books = Books(connection, now_ms)
    if not found:
        return books, []
    books.open({row.key: 0 for row in found})
    again = leases.by_name(connection, [(row.customer, row.lease) for row in found])
    return books, list(again)
