"""What is repeated without being asked; every replica does it, and doing it twice changes nothing.

follow_changes   reads the change feed and wakes hanging watches
forget_old       removes what is older than records are kept for
keep_doors       checks the tokens seen lately, and writes down when they were used
make_meters      makes meters of the events that are there
keep_entitlements   writes down what changes by itself about subscriptions
reclaim          marks and closes leases of silent holders, prunes what is old
"""

from __future__ import annotations

from functools import partial

import anyio

from control_plane.access import Doorkeeper
from control_plane.background.follow_changes import follow_changes
from control_plane.background.forget_old import forget_old
from control_plane.background.keep_doors import keep_doors
from control_plane.background.keep_entitlements import keep_entitlements
from control_plane.background.make_meters import make_meters
from control_plane.background.reclaim import reclaim
from control_plane.clock import Clock
from control_plane.operations.forget_old import RETENTION_MS
from control_plane.operations.watch_changes import ChangeFeed
from control_plane.store.database import Database


async def run_background(
    database: Database, clock: Clock, feed: ChangeFeed, doorkeeper: Doorkeeper, retention_ms: int = RETENTION_MS
) -> None:
    """Run everything, until cancelled."""
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow_changes, database, feed, clock)
            tasks.start_soon(partial(reclaim, database, clock))
            tasks.start_soon(keep_doors, doorkeeper)
            tasks.start_soon(keep_entitlements, database, clock)
            tasks.start_soon(make_meters, database)
            tasks.start_soon(forget_old, database, clock, retention_ms)
    finally:
        feed.close()
