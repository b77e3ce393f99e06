"""Puts the pieces together: one Litestar application on one database, with the time from one clock."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide

from control_plane.access import Doorkeeper, guard
from control_plane.api import ALL_HANDLERS
from control_plane.api.bodies import BODY_BYTES_MAX
from control_plane.api.context import provide_context
from control_plane.api.docs_page import openapi_config
from control_plane.api.errors import EXCEPTION_HANDLERS
from control_plane.api.headers import add_security_headers
from control_plane.api.strictness import guard_shape
from control_plane.clock import Clock
from control_plane.settings import Settings
from control_plane.store.database import Database


def create_app(settings: Settings, database: Database, clock: Clock) -> Litestar:
    """The application; the caller migrates the database before it serves, and disposes of it after."""
    del settings
    return Litestar(
        # In one router: Litestar 2.25 wraps a handler in a thread twice when its path is registered piece by piece.
        route_handlers=[Router("/", route_handlers=ALL_HANDLERS)],
        guards=[guard, guard_shape],
        dependencies={"context": Provide(provide_context, sync_to_thread=False)},
        exception_handlers=EXCEPTION_HANDLERS,
        before_send=[add_security_headers],
        openapi_config=openapi_config(_version()),
        request_max_body_size=BODY_BYTES_MAX,
        state=State({"database": database, "clock": clock, "doorkeeper": Doorkeeper(database, clock)}),
        logging_config=None,
    )


def _version() -> str:
    try:
        return version("allotment-programs")
    except PackageNotFoundError:
        return "0"
