"""The control plane's one database: SQLite embedded or PostgreSQL, its transactions, and when to repeat one."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.engine import URL
from sqlalchemy.pool import ConnectionPoolEntry

from control_plane.store import migrate
from control_plane.store.file_claim import FileClaim

__all__ = [
    "Connection",
    "Database",
    "DatabaseUnavailable",
    "normalise_url",
]  # operations pass connections on, and know no more of SQL

T = TypeVar("T")

ATTEMPTS_MAX = 5
POOL_MAX = 20
WAIT_MAX_S = 10

_READ_ONLY = "allotment_read_only"
_REPEATABLE = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.UniqueViolation,
)
_REPEATABLE_ON_SQLITE = {sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE}


class DatabaseUnavailable(Exception):  # noqa: N818 - reads as what it says
    """The database cannot be reached, is busy beyond patience, or became read-only. Trying again later may help."""


class Database:
    """Connections to one database, shared by all threads of the process.

    SQLite: WAL, ``synchronous=FULL``, foreign keys, one writer at a time (``BEGIN IMMEDIATE``, and a lock so that
    threads wait in line instead of polling). PostgreSQL: READ COMMITTED.
    """

    def __init__(self, url: str, pause: Callable[[float], None] = time.sleep) -> None:
        """Open lazily: nothing is contacted before the first transaction, but a missing SQLite file is made (0600).

        Args:
            pause: lets so many seconds pass before a transaction is repeated.
        """
        self.url = normalise_url(url)
        self._pause = pause
        self._writer: threading.Lock | None = None
        self._engine = _sqlite_engine(self.url) if self.is_sqlite else _postgresql_engine(self.url)
        if self.is_sqlite:
            self._writer = threading.Lock()

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.url.get_backend_name()

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file of ours."""
        return self.dialect == "sqlite"

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction that may write: committed at the end, rolled back on any exception.

        Raises: DatabaseUnavailable: see there.
        """
        with _translated(), self._turn(), self._engine.connect() as connection, connection.begin():
            yield connection

    def run(self, work: Callable[[Connection], T], *, keep: bool = True) -> T:
        """Do ``work`` in a transaction; repeat it when the database gave it up without having committed it, or when
        somebody else has just added the same row (which the repetition then finds).

        ``work`` may run up to five times, so it must not touch anything but the connection. A connection lost *while*
        committing is not repeated: the commit may have happened; callers are idempotent and ask again.

        Args:
            keep: without it everything is rolled back at the end: what would happen, and nothing has.

        Raises: DatabaseUnavailable: see there.
        """
        attempt = 0
        while True:
            attempt += 1
            committing = False
            try:
                with self._turn(), self._engine.connect() as connection:
                    with contextlib.ExitStack() as undo:
                        transaction = connection.begin()
                        undo.callback(transaction.close)
                        result = work(connection)
                        if keep:
                            committing = True
                            transaction.commit()
                    return result
            except exc.SQLAlchemyError as error:
                if attempt >= ATTEMPTS_MAX or not _may_repeat(error, committing=committing):
                    raise _as_unavailable(error) from error
            self._pause(random.uniform(0.005, 0.02) * 2**attempt)  # noqa: S311 - jitter, not a secret

    def read(self, work: Callable[[Connection], T]) -> T:
        """Do ``work`` on one consistent state without writing; on SQLite it does not wait for the writer.

        Raises: DatabaseUnavailable: see there.
        """
        with _translated(), self._engine.connect() as connection:
            if self.is_sqlite:
                connection.execution_options(**{_READ_ONLY: True})
            else:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                return work(connection)

    def migrate(self) -> None:
        """Bring the schema to the newest version; safe when several replicas start at once."""
        with self.transaction() as connection:
            migrate.upgrade(connection)

    def is_current(self) -> bool:
        """Whether the schema is the one this program was written for. Raises: DatabaseUnavailable."""
        return self.read(migrate.is_at_head)

    def claim(self) -> contextlib.AbstractContextManager[object]:
        """Hold the SQLite file for one control plane; PostgreSQL serves any number.

        Raises: FileClaimed: another control plane has it.
        """
        path = self.url.database
        return FileClaim(Path(path)) if self.is_sqlite and path else contextlib.nullcontext()

    def dispose(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if self._writer is None:
            yield
            return
        if not self._writer.acquire(timeout=WAIT_MAX_S):
            raise DatabaseUnavailable(f"the database has been busy for {WAIT_MAX_S} s")
        try:
            yield
        finally:
            self._writer.release()


def normalise_url(url: str) -> URL:
    """``sqlite:///path`` and ``postgresql://...`` with the drivers we use.

    Raises: ValueError: any other database, or an SQLite database in memory (nothing would be kept).
    """
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise ValueError("is not a database URL") from None
    backend = "postgresql" if parsed.drivername == "postgres" else parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or parsed.database in {None, "", ":memory:"}:
        raise ValueError("is neither a SQLite file nor a PostgreSQL database")
    return parsed.set(drivername="sqlite+pysqlite")


def _sqlite_engine(url: URL) -> Engine:
    path = Path(url.database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    engine = create_engine(url, pool_size=POOL_MAX, max_overflow=0, pool_timeout=WAIT_MAX_S)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves; the driver would say it too late
        for pragma in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _postgresql_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        pool_size=POOL_MAX,
        max_overflow=0,
        pool_timeout=WAIT_MAX_S,
        pool_recycle=1_800,
        isolation_level="READ COMMITTED",
        connect_args={"connect_timeout": 5, "application_name": "allotment-control-plane"},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: psycopg.Connection, _entry: ConnectionPoolEntry) -> None:
        # Nothing waits for ever: a stuck peer must not hold rows that everybody needs.
        connection.execute("SET statement_timeout = '30s'; SET lock_timeout = '10s'")
        connection.execute("SET idle_in_transaction_session_timeout = '30s'")
        connection.commit()

    return engine


def _may_repeat(error: exc.SQLAlchemyError, *, committing: bool) -> bool:
    if not isinstance(error, exc.DBAPIError):
        return False
    if isinstance(error.orig, _REPEATABLE) or _is_passing(error.orig):  # a new look at the state will help
        return True
    return not committing and (
        error.connection_invalidated or isinstance(error, exc.OperationalError | exc.InterfaceError)
    )


def _is_passing(error: BaseException | None) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    if not isinstance(code, int):
        return False
    return code in _REPEATABLE_ON_SQLITE or code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _as_unavailable(error: exc.SQLAlchemyError) -> Exception:
    if isinstance(error, exc.TimeoutError):
        return DatabaseUnavailable("every connection to the database is in use")
    read_only = isinstance(getattr(error, "orig", None), psycopg.errors.ReadOnlySqlTransaction)
    if isinstance(error, exc.OperationalError | exc.InterfaceError) or read_only:
        return DatabaseUnavailable("the database cannot be used at the moment")
    return error


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise _as_unavailable(error) from error
