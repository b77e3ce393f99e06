"""Health over HTTP: the only routes that need no token, and that say no more than yes, no, or not yet."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from litestar import Request, Response, get
from litestar.exceptions import HTTPException

from control_plane.access import EVERYBODY
from control_plane.api.errors import Problem, problem
from control_plane.store import custody
from control_plane.store.database import Database, DatabaseUnavailable


@get("/healthz", opt=EVERYBODY, tags=["health"], security=[{}])
async def healthz(request: Request[Any, Any, Any]) -> dict[str, str] | Response[Problem]:
    """The program runs, answers, and does what it must do without being asked."""
    if not request.app.state.healthy:
        return problem(503, "background_failed", "What is done without being asked is done no longer: restart me.")
    return {"status": "ok"}


@get("/readyz", opt=EVERYBODY, tags=["health"], security=[{}], raises=[HTTPException])
async def readyz(request: Request[Any, Any, Any]) -> dict[str, str] | Response[Problem]:
    """It can serve: the database answers, and has the schema that this program was written for.

    ``mode: learning`` after a restore: it listens, and lends nothing finite for now (``GET /v1/generations``).
    """
    database: Database = request.app.state.database
    try:
        current = await to_thread.run_sync(database.is_current)
        present = await to_thread.run_sync(database.read, custody.present) if current else None
    except DatabaseUnavailable:
        return problem(503, "database_unavailable", "The database cannot be reached.", headers={"Retry-After": "1"})
    if not current:
        return problem(503, "schema_not_current", "The database has another schema version than this program.")
    if present is not None and present.generation.is_learning(request.app.state.clock.now_ms()):
        return {"status": "ok", "mode": "learning"}
    return {"status": "ok"}


HEALTH_HANDLERS = [healthz, readyz]
