"""Writes down, now and then, when tokens were last used."""

from __future__ import annotations

import logging

import anyio
from anyio import CapacityLimiter, to_thread

from control_plane.access import Doorkeeper
from control_plane.store.database import DatabaseUnavailable

EVERY_S = 10.0

_logger = logging.getLogger("allotment.background")


async def note_uses(doorkeeper: Doorkeeper) -> None:
    """Write until cancelled; a database that is away is tried again."""
    alone = CapacityLimiter(1)
    while True:
        await anyio.sleep(EVERY_S)
        try:
            await to_thread.run_sync(doorkeeper.write_down, limiter=alone)
        except DatabaseUnavailable as error:
            _logger.warning("uses of tokens cannot be noted: %s", error)
