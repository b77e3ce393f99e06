"""Checks the tokens seen lately, all at once; and writes down, now and then, when they were used."""

from __future__ import annotations

import logging

import anyio
from anyio import CapacityLimiter, to_thread

from control_plane.access import BELIEVED_MS, Doorkeeper
from control_plane.store.database import DatabaseUnavailable

EVERY_S = BELIEVED_MS / 1_000 / 2
"""Those who keep coming never have to wait for the database."""
CHECKS_A_NOTE = 4

_logger = logging.getLogger("allotment.background")


async def keep_doors(doorkeeper: Doorkeeper) -> None:
    """Check and write until cancelled; a database that is away is tried again."""
    alone = CapacityLimiter(1)
    while True:
        try:
            for _ in range(CHECKS_A_NOTE):
                await anyio.sleep(EVERY_S)
                await to_thread.run_sync(doorkeeper.check_again, limiter=alone)
            await to_thread.run_sync(doorkeeper.write_down, limiter=alone)
        except DatabaseUnavailable as error:
            _logger.warning("tokens cannot be checked in advance, nor their uses noted: %s", error)
