"""Writes down what changes by itself: trials that end, what was arranged for now, overrides that run out."""

from __future__ import annotations

import logging

import anyio
from anyio import CapacityLimiter, to_thread

from control_plane.clock import Clock
from control_plane.operations import keep_entitlements as operation
from control_plane.store.database import Database, DatabaseUnavailable

EVERY_S = 0.5

_logger = logging.getLogger("allotment.background")


async def keep_entitlements(database: Database, clock: Clock) -> None:
    """Look until cancelled; a database that is away is tried again."""
    alone = CapacityLimiter(1)
    while True:
        try:
            await to_thread.run_sync(keep_all_due, database, clock, limiter=alone)
        except DatabaseUnavailable as error:
            _logger.warning("entitlements cannot be brought up to date: %s", error)
        await anyio.sleep(EVERY_S)


def keep_all_due(database: Database, clock: Clock) -> None:
    """Every customer whose time has come, in small transactions; looking alone takes no write lock."""
    while database.read(lambda connection: operation.any_due(connection, clock.now_ms())):
        database.run(lambda connection: operation.keep_due(connection, clock.now_ms()))
