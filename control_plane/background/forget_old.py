"""Forgets, once a day, what is older than records are kept for."""

from __future__ import annotations

import logging

import anyio
from anyio import CapacityLimiter, to_thread

from control_plane.clock import Clock
from control_plane.operations import forget_old as operation
from control_plane.store.database import Database, DatabaseUnavailable

EVERY_S = 86_400.0
AGAIN_S = 600.0

_logger = logging.getLogger("allotment.background")


async def forget_old(database: Database, clock: Clock, retention_ms: int) -> None:
    """Forget until cancelled; a database that is away is tried again."""
    alone = CapacityLimiter(1)
    while True:
        await anyio.sleep(AGAIN_S)  # not while everybody starts
        try:
            before_ms = clock.now_ms() - retention_ms
            await to_thread.run_sync(operation.forget_old, database, before_ms, limiter=alone)
        except DatabaseUnavailable as error:
            _logger.warning("old records cannot be removed: %s", error)
        else:
            await anyio.sleep(EVERY_S)
