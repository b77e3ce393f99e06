"""Makes meters of the events that are there, where something was corrected or a meter was declared late."""

from __future__ import annotations

import logging

import anyio
from anyio import CapacityLimiter, to_thread

from control_plane.operations import make_meters as operation
from control_plane.store.database import Database, DatabaseUnavailable

EVERY_S = 0.5

_logger = logging.getLogger("allotment.background")


async def make_meters(database: Database) -> None:
    """Look until cancelled; a database that is away is tried again."""
    alone = CapacityLimiter(1)
    while True:
        try:
            while await to_thread.run_sync(make_some, database, limiter=alone):
                pass
        except DatabaseUnavailable as error:
            _logger.warning("meters cannot be brought up to date: %s", error)
        await anyio.sleep(EVERY_S)


def make_some(database: Database) -> bool:
    """A transaction of each sort; whether there was anything. Looking alone takes no write lock."""
    if not database.read(operation.any_to_make):
        return False
    database.run(operation.make_due_hours)
    database.run(operation.make_more)
    return True
