"""Health over HTTP: the only routes that need no token, and that say no more than yes, no, or not yet."""

from __future__ import annotations

from typing import Any

import msgspec
from anyio import to_thread
from litestar import Request, get
from litestar.exceptions import HTTPException

from control_plane.access import EVERYBODY
from control_plane.operations.refusals import Busy
from control_plane.store import custody
from control_plane.store.database import Database


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """All is well; ``mode`` says if it is not as usual."""

    status: str
    mode: str = ""


@get("/healthz", opt=EVERYBODY, tags=["health"], security=[{}])
async def healthz(request: Request[Any, Any, Any]) -> Health:
    """The program runs, answers, and does what it must do without being asked."""
    if not request.app.state.healthy:
        raise Busy("background_failed", "What is done without being asked is done no longer: restart me.")
    return Health("ok")


@get("/readyz", opt=EVERYBODY, tags=["health"], security=[{}], raises=[HTTPException])
async def readyz(request: Request[Any, Any, Any]) -> Health:
    """It can serve: the database answers, and has the schema that this program was written for.

    ``mode: learning`` after a restore: it listens, and lends nothing finite for now (``GET /v1/generations``).
    """
    database: Database = request.app.state.database
    current = await to_thread.run_sync(database.is_current)
    if not current:
        raise Busy("schema_not_current", "The database has another schema version than this program.")
    present = await to_thread.run_sync(database.read, custody.present)
    learning = present.generation.is_learning(request.app.state.clock.now_ms())
    return Health("ok", "learning" if learning else "")


HEALTH_HANDLERS = [healthz, readyz]
