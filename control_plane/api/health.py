"""Health over HTTP: the only routes that need no token, and that say nothing but yes or no."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from litestar import Request, Response, get
from litestar.exceptions import HTTPException

from control_plane.access import EVERYBODY
from control_plane.api.errors import Problem, problem
from control_plane.store.database import DatabaseUnavailable


@get("/healthz", opt=EVERYBODY, tags=["health"], security=[{}])
async def healthz(request: Request[Any, Any, Any]) -> dict[str, str] | Response[Problem]:
    """The program runs, answers, and does what it must do without being asked."""
    if not request.app.state.healthy:
        return problem(503, "background_failed", "What is done without being asked is done no longer: restart me.")
    return {"status": "ok"}


@get("/readyz", opt=EVERYBODY, tags=["health"], security=[{}], raises=[HTTPException])
async def readyz(request: Request[Any, Any, Any]) -> dict[str, str] | Response[Problem]:
    """It can serve: the database answers, and has the schema that this program was written for."""
    try:
        current = await to_thread.run_sync(request.app.state.database.is_current)
    except DatabaseUnavailable:
        return problem(503, "database_unavailable", "The database cannot be reached.", headers={"Retry-After": "1"})
    if not current:
        return problem(503, "schema_not_current", "The database has another schema version than this program.")
    return {"status": "ok"}


HEALTH_HANDLERS = [healthz, readyz]
