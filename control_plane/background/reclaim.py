"""Sweeps over leases of silent holders, and over rows that nobody needs any longer."""

from __future__ import annotations

import logging

import anyio
from anyio import CapacityLimiter, to_thread

from control_plane.clock import Clock
from control_plane.operations.reclaim_leases import BATCH_MAX, SWEEPS
from control_plane.store import changes, demands
from control_plane.store.database import Connection, Database, DatabaseUnavailable

EVERY_S = 5.0
PRUNE_EVERY_S = 60.0
KEEP_CHANGES_MS = 600_000
KEEP_DEMANDS_MS = 600_000

_logger = logging.getLogger("allotment.background")


async def reclaim(database: Database, clock: Clock) -> None:
    """Sweep until cancelled; a database that is away is tried again."""
    alone = CapacityLimiter(1)
    since_prune_s = PRUNE_EVERY_S
    while True:
        try:
            await to_thread.run_sync(sweep, database, clock, limiter=alone)
            if since_prune_s >= PRUNE_EVERY_S:
                await to_thread.run_sync(prune, database, clock, limiter=alone)
                since_prune_s = 0.0
        except DatabaseUnavailable as error:
            _logger.warning("leases cannot be swept: %s", error)
        await anyio.sleep(EVERY_S)
        since_prune_s += EVERY_S


def sweep(database: Database, clock: Clock) -> None:
    """One round: each kind of sweep until nothing is left, in small transactions."""
    for step in SWEEPS:
        while database.run(lambda connection, step=step: step(connection, clock.now_ms())) == BATCH_MAX:  # type: ignore[misc]
            pass


def prune(database: Database, clock: Clock) -> None:
    """Forget old rows of the change feed and old demands."""

    def work(connection: Connection) -> None:
        changes.prune(connection, clock.now_ms() - KEEP_CHANGES_MS)
        demands.prune(connection, clock.now_ms() - KEEP_DEMANDS_MS)

    database.run(work)
