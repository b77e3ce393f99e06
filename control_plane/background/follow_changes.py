"""Reads the change feed again and again, and wakes the watches that its news concern."""

from __future__ import annotations

import logging

import anyio
from anyio import CapacityLimiter, to_thread

from control_plane.operations.watch_changes import ChangeFeed
from control_plane.store import changes
from control_plane.store.database import Connection, Database, DatabaseUnavailable

POLL_S = 0.1
PAUSE_S = 1.0
ROWS_MAX = 1_000

_logger = logging.getLogger("allotment.background")


async def follow_changes(database: Database, feed: ChangeFeed) -> None:
    """Follow the feed until cancelled; a database that is away is asked again."""
    alone = CapacityLimiter(1)  # a thread of its own: however many requests wait, changes get through
    begun = False
    while True:
        try:
            if not begun:
                feed.begin(await to_thread.run_sync(database.read, changes.bounds, limiter=alone))
                begun = True
            while len(await _read(database, feed, alone)) == ROWS_MAX:
                pass
        except DatabaseUnavailable as error:
            _logger.warning("the change feed cannot be read: %s", error)
            await anyio.sleep(PAUSE_S)
        await feed.nudged(POLL_S)


async def _read(database: Database, feed: ChangeFeed, alone: CapacityLimiter) -> list[changes.Numbered]:
    after = feed.newest

    def look(connection: Connection) -> list[changes.Numbered]:
        return changes.after(connection, after, ROWS_MAX)

    rows = await to_thread.run_sync(database.read, look, limiter=alone)
    feed.take(rows)
    return rows
