"""The control plane: replicas of the real application on one database, killed at any statement and started again."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx
import trio
from litestar import Litestar
from sqlalchemy import Connection, event, exc

from control_plane.app import create_app, new_state
from control_plane.operations.sync_together import SyncDesk
from control_plane.store.database import Database
from tests.simulation.chronicle import Chronicle
from tests.simulation.faults import Blow, Fuse, Killed
from tests.simulation.moments import ServerClock

DOING: ContextVar[str] = ContextVar("doing", default="background")
"""What a statement is made for: the operation, and the number of the message that it answers."""

_SPARE: list[Litestar] = []
"""Applications of processes that ended. Their routes take longer to read than a world takes for a virtual minute."""


ON_ITS_WAY_S = 0.03
"""For how long a thread that answers syncs is on its way at most."""


class UnhurriedDesk(SyncDesk):
    """While its thread is on its way others come, and are answered in the same transaction: work that is done here and
    now would leave nobody the time."""

    async def _lead(self) -> None:
        self._led = True
        await trio.sleep(random.uniform(0, ON_ITS_WAY_S))
        await super()._lead()

    def _carry_out(self, batch: list[Any]) -> None:
        if len(batch) == 1:
            super()._carry_out(batch)
            return
        doing = DOING.set("sync of several")  # no single message's
        try:
            super()._carry_out(batch)
        finally:
            DOING.reset(doing)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, complete."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Replica:
    """One process of the control plane, started again whenever it has been killed.

    Attributes:
        fuse: what will strike at one of the next statements.
        database_away: no statement gets through for now.
        open: it has the database's file open.
        commits: how many transactions it has committed, by what for.
    """

    def __init__(self, name: str, url: str, clock: ServerClock, chronicle: Chronicle, dice: random.Random) -> None:
        self.name = name
        self._url = url
        self._clock = clock
        self._chronicle = chronicle
        self._dice = dice
        self._app: Litestar | None = None
        self._scopes: set[trio.CancelScope] = set()
        self._killed = trio.Event()
        self.fuse: Fuse | None = None
        self.database_away = False
        self.held_down = False
        self.open = False
        self.committed: Callable[[str], None] = lambda _: None

    @property
    def up(self) -> bool:
        """Whether it takes requests."""
        return self._app is not None

    async def live(self) -> None:
        """Run, be killed, be started again."""
        while True:
            self._killed = trio.Event()
            database = Database(self._url, pause=lambda _: None)
            self.open = True
            self._wire(database)
            app = application(database, self._clock)
            try:
                async with app.lifespan():
                    self._app = app
                    self._chronicle.note(f"{self.name} is up")
                    await self._killed.wait()
                    raise Killed
            except* Killed:
                self.die()
            finally:
                self._app = None
                _SPARE.append(app)
                database.dispose()
                self.open = False
            await trio.sleep(self._dice.uniform(0.2, 3.0))
            while self.held_down:  # noqa: ASYNC110 - plain functions let it go
                await trio.sleep(0.5)

    def die(self) -> None:
        """Killed: whatever it was doing stops here."""
        if self._app is not None:
            self._chronicle.note(f"{self.name} dies")
        self._app = None
        self._killed.set()
        for scope in list(self._scopes):
            scope.cancel()

    async def serve(self, request: httpx.Request, doing: str) -> Answer | None:
        """The application's answer; ``None`` when the process died over it."""
        app, life = self._app, self._killed
        if app is None:
            return None
        DOING.set(doing)
        answer: Answer | None = None
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                transport = httpx.ASGITransport(app, raise_app_exceptions=True)
                response = await transport.handle_async_request(request)
                answer = Answer(response.status_code, response.headers.raw, await response.aread())
            except Killed:
                pass
            except BaseExceptionGroup as group:
                if group.split(Killed)[1] is not None:
                    raise
            finally:
                self._scopes.discard(scope)
        return None if self._app is None or self._killed is not life else answer

    def _wire(self, database: Database) -> None:
        """Let fuses burn with every statement and commit of this process."""
        engine = database._engine

        @event.listens_for(engine, "before_cursor_execute")
        def before(connection: Connection, *_: object) -> None:
            if self.database_away:
                raise exc.OperationalError("no connection", None, ConnectionError("the database is away"))
            self._occasion(Blow.BEFORE_STATEMENT, connection.connection.dbapi_connection)

        @event.listens_for(engine, "after_cursor_execute")
        def after(connection: Connection, *_: object) -> None:
            self._occasion(Blow.AFTER_STATEMENT, connection.connection.dbapi_connection)

        do_commit = engine.dialect.do_commit

        def commit(connection: Any) -> None:
            self._occasion(Blow.BEFORE_COMMIT, connection)
            do_commit(connection)
            self.committed(DOING.get())
            self._occasion(Blow.AFTER_COMMIT, connection)

        engine.dialect.do_commit = commit  # type: ignore[method-assign]

    def _occasion(self, blow: Blow, connection: Any) -> None:
        if self.fuse is not None and self.fuse.burns_out(blow, DOING.get()):
            connection.rollback()  # as the system does for a process that is gone
            self.fuse = None
            doing = DOING.get().partition(" ")[0]
            self._chronicle.happened(f"control plane killed {blow.value}", doing)
            self.die()
            raise Killed


def application(database: Database, clock: ServerClock) -> Litestar:
    """One that knows nothing but its database and its clock."""
    if not _SPARE:
        return create_app(database, clock)
    app = _SPARE.pop()
    app.state = new_state(database, clock)
    return app
