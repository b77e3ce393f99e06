"""Puts the pieces together: one Litestar application on one database, with the time from one clock."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import anyio
from litestar import Litestar, Router
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler

from control_plane.access import Doorkeeper, guard
from control_plane.api import ALL_HANDLERS
from control_plane.api.access_log import log_access
from control_plane.api.bodies import BODY_BYTES_MAX
from control_plane.api.context import provide_context
from control_plane.api.docs_page import TuplesOfOneKind, openapi_config
from control_plane.api.errors import EXCEPTION_HANDLERS
from control_plane.api.headers import add_security_headers
from control_plane.api.metrics import Metrics
from control_plane.api.strictness import guard_shape
from control_plane.background import run_background
from control_plane.clock import Clock
from control_plane.operations.forget_old import RETENTION_MS
from control_plane.operations.watch_changes import ChangeFeed
from control_plane.store.database import Database

_logger = logging.getLogger("allotment.app")


def create_app(database: Database, clock: Clock, retention_ms: int = RETENTION_MS) -> Litestar:
    """The application; the caller migrates the database before it serves, and disposes of it after.

    Args:
        retention_ms: for how long records of what is over are kept.
    """
    return Litestar(
        # In one router: Litestar 2.25 wraps a handler in a thread twice when its path is registered piece by piece.
        route_handlers=[Router("/", route_handlers=ALL_HANDLERS)],
        guards=[_look_at_request],
        dependencies={"context": Provide(provide_context, sync_to_thread=False)},
        exception_handlers=EXCEPTION_HANDLERS,
        before_send=[add_security_headers, log_access],
        lifespan=[_background],
        openapi_config=openapi_config(_version()),
        plugins=[TuplesOfOneKind()],
        request_max_body_size=BODY_BYTES_MAX,
        state=new_state(database, clock, retention_ms),
        logging_config=None,
    )


async def _look_at_request(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Who asks, then how. One guard and not two: Litestar copies the handler for each, at a twentieth of a request."""
    await guard(connection, handler)
    await guard_shape(connection, handler)


def new_state(database: Database, clock: Clock, retention_ms: int = RETENTION_MS) -> State:
    """All that one application knows and another does not: given this, one that was shut down begins anew."""
    return State(
        {
            "database": database,
            "clock": clock,
            "feed": ChangeFeed(),
            "healthy": True,
            "doorkeeper": Doorkeeper(database, clock),
            "metrics": Metrics(),
            "retention_ms": retention_ms,
        }
    )


@contextlib.asynccontextmanager
async def _background(app: Litestar) -> AsyncIterator[None]:
    state = app.state

    async def run() -> None:
        try:
            await run_background(state.database, state.clock, state.feed, state.doorkeeper, state.retention_ms)
        except Exception:
            # Leases would not expire and watches not wake: /healthz says so, and whoever watches it restarts us.
            _logger.exception("the background has failed")
            state.healthy = False

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        yield
        tasks.cancel_scope.cancel()


def _version() -> str:
    try:
        return version("allotment-programs")
    except PackageNotFoundError:
        return "0"
