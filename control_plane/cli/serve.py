"""Serves: migrates, takes in the operator's tokens, and answers until it is told to stop."""

from __future__ import annotations

import signal
import socket

import click
import uvicorn
from litestar import Litestar

from control_plane.api.docs_page import PAGE_PATH
from control_plane.app import create_app
from control_plane.cli.logs import configure
from control_plane.cli.opening import errors_for_people, opened
from control_plane.clock import SystemClock, random_secret
from control_plane.core.tokens import Role
from control_plane.operations.forget_old import DAY_MS
from control_plane.operations.issue_token import provision
from control_plane.operations.take_custody import take_custody
from control_plane.settings import Settings
from control_plane.store.database import Connection, Database
from protocol.violations import Violation

GRACE_S = 3
"""How long requests in flight may take to end after SIGTERM."""
CONNECTIONS_MAX = 20_000
IDLE_S = 75


class Server(uvicorn.Server):
    """Says where it is when it is there, and lets hanging watches go when it is told to stop."""

    def __init__(self, config: uvicorn.Config, app: Litestar, greeting: str) -> None:
        super().__init__(config)
        self._app = app
        self._greeting = greeting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            click.echo(self._greeting)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: hanging watches are answered now, others have ``GRACE_S`` to end."""
        self._app.state.feed.close()
        await super().shutdown(sockets)


def serve_until_told() -> None:
    """Migrate, take in the operator's tokens, and serve. Raises: click.ClickException: an operator can set it right."""
    with errors_for_people(), opened() as (settings, database), database.claim():
        database.migrate()
        database.run(lambda connection: _provision(connection, settings))
        listener = _listen(settings)
        configure()
        _run(settings, database, listener)


def _run(settings: Settings, database: Database, listener: socket.socket) -> None:
    app = create_app(database, SystemClock(), settings.retention_days * DAY_MS)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
    )
    # When it has stopped, uvicorn sends itself the signal again: told to stop and stopped is a success.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: None)
    server = Server(config, app, _greeting(settings, database, listener))
    server.run(sockets=[listener])
    if not server.started:
        raise click.ClickException("the server could not start; its log says why")


def _provision(connection: Connection, settings: Settings) -> None:
    now_ms = SystemClock().now_ms()
    fresh_key = random_secret().encode()
    take_custody(
        connection, settings.seal_key, fresh_key, settings.learning_minutes, now_ms, grace_days=settings.grace_days
    )
    if settings.admin_token is not None:
        provision(connection, "ALLOTMENT_ADMIN_TOKEN_FILE", settings.admin_token, Role.ADMIN, now_ms)
    if settings.join_token is not None:
        provision(connection, "ALLOTMENT_JOIN_TOKEN_FILE", settings.join_token, Role.JOIN, now_ms)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        problem = f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}"
        raise Violation("ALLOTMENT_HOST, ALLOTMENT_PORT", problem, "a free port on an address of this host") from None
    # Accepted sockets inherit it. The event loop sets it only on sockets that name their protocol, which these do not:
    # head and body of an answer would leave as two packets, the second waiting 40 ms for the receipt of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _greeting(settings: Settings, database: Database, listener: socket.socket) -> str:
    scheme = "https" if settings.tls_cert_file else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{scheme}://{host}:{listener.getsockname()[1]}"
    return f"Allotment control plane on {url} ({database.dialect}); API page {url}{PAGE_PATH}; stop with Ctrl-C"
