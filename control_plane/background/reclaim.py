"""Sweeps over leases of silent holders, and over rows that nobody needs any longer."""

from __future__ import annotations

import logging

import anyio
from anyio import CapacityLimiter, to_thread

from control_plane.clock import Clock
from control_plane.operations.reclaim_leases import BATCH_MAX, SWEEPS
from control_plane.store import changes, custody, demands
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
    said = ""
    while True:
        try:
            await to_thread.run_sync(sweep, database, clock, limiter=alone)
            said = await to_thread.run_sync(say_learning, database, clock, said, limiter=alone)
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


def say_learning(database: Database, clock: Clock, said: str) -> str:
    """Log that nothing finite is lent for now, and that it is lent again, once each.

    Args:
        said: what was returned the last time.

    Returns: the name of the generation that is learning, or ``""``.
    """
    generation = database.read(custody.present).generation
    learning = generation.name if generation.is_learning(clock.now_ms()) else ""
    if learning and learning != said:
        missing = database.read(lambda connection: custody.missing(connection, generation))
        _logger.warning(
            "the database was restored (%s): nothing finite is lent until agents say what they hold; %d are missing",
            generation.detail,
            missing,
        )
    elif said and not learning:
        _logger.warning("agents have said what they hold; everything is lent again")
    return learning


def prune(database: Database, clock: Clock) -> None:
    """Forget old rows of the change feed and old demands."""

    def work(connection: Connection) -> None:
        changes.prune(connection, clock.now_ms() - KEEP_CHANGES_MS)
        demands.prune(connection, clock.now_ms() - KEEP_DEMANDS_MS)

    database.run(work)
