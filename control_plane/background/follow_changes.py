"""Reads the change feed again and again, and wakes the watches that its news concern."""

from __future__ import annotations

import logging

import anyio
from anyio import CapacityLimiter, to_thread

from control_plane.clock import Clock
from control_plane.operations.resolve_entitlement import standing_of
from control_plane.operations.watch_changes import ChangeFeed
from control_plane.store import changes
from control_plane.store.database import Connection, Database, DatabaseUnavailable
from protocol.entitlements import Entitlement

POLL_S = 0.1
PAUSE_S = 1.0
ROWS_MAX = 1_000
CARRIED_MAX = 16
"""Of so many customers at most, watches are told the entitlement itself: every agent hears of every one."""

_logger = logging.getLogger("allotment.background")


async def follow_changes(database: Database, feed: ChangeFeed, clock: Clock) -> None:
    """Follow the feed until cancelled; a database that is away is asked again."""
    alone = CapacityLimiter(1)  # a thread of its own: however many requests wait, changes get through
    begun = False
    while True:
        try:
            if not begun:
                feed.begin(await to_thread.run_sync(database.read, changes.bounds, limiter=alone))
                begun = True
            while len(await _read(database, feed, clock, alone)) == ROWS_MAX:
                pass
        except DatabaseUnavailable as error:
            _logger.warning("the change feed cannot be read: %s", error)
            await anyio.sleep(PAUSE_S)
        await feed.nudged(POLL_S)


async def _read(database: Database, feed: ChangeFeed, clock: Clock, alone: CapacityLimiter) -> list[changes.Numbered]:
    after, now_ms = feed.newest, clock.now_ms()

    def look(connection: Connection) -> tuple[list[changes.Numbered], dict[str, Entitlement]]:
        rows = changes.after(connection, after, ROWS_MAX)
        changed = {row.customer for row in rows if row.kind == changes.ENTITLEMENT}
        if not 0 < len(changed) <= CARRIED_MAX:
            return rows, {}
        return rows, standing_of(connection, changed, now_ms).entitlements

    rows, entitlements = await to_thread.run_sync(database.read, look, limiter=alone)
    feed.take(rows, entitlements, now_ms)
    return rows
