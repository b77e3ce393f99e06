"""What the control plane's tests stand on: real databases of both kinds, and a clock that is set."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from control_plane.app import create_app, new_state
from control_plane.clock import random_id, random_secret
from control_plane.core.tokens import Role
from control_plane.operations.issue_token import TokenOrder, issue
from control_plane.store import agents
from control_plane.store.database import Connection, Database
from control_plane.store.tables import metadata

NOW_MS = 1_790_000_000_000  # 2026-09-21T13:33:20Z
_MADE = ("generations", "seal_keys")  # every database has rows in these from its first migration on
_KEEP = "CREATE SCHEMA as_made;" + "".join(f"CREATE TABLE as_made.{name} AS TABLE {name};" for name in _MADE)
# Only what has rows; a file is made anew only where much was written: deleting a few rows takes a tenth of that time.
_EMPTY = f"""
DO $$ DECLARE name text; filled boolean; BEGIN
  SET LOCAL session_replication_role = replica;  -- in any order
  FOREACH name IN ARRAY ARRAY[{", ".join(f"'{table}'" for table in sorted(metadata.tables))}] LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM %I)', name) INTO filled;
    IF pg_relation_size(name::regclass) > 200000 THEN EXECUTE format('TRUNCATE %I', name);
    ELSIF filled THEN EXECUTE format('DELETE FROM %I', name); END IF;
  END LOOP;
  PERFORM setval(format('%I', sequencename)::regclass, 1, false) FROM pg_sequences
    WHERE last_value IS NOT NULL AND schemaname = 'public';
  {"".join(f"INSERT INTO {name} SELECT * FROM as_made.{name};" for name in _MADE)}
END $$
""".encode()
_IN_MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def set(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def advance(self, ms: int) -> None:
        self._now_ms += ms


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def postgresql_migrated(postgresql_server: str) -> str:
    """URL of a database of the server's that has the schema."""
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE allotment")
    url = postgresql_server.replace("/postgres?", "/allotment?")
    database = Database(url)
    database.migrate()
    database.dispose()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_KEEP.encode())
    return url


@pytest.fixture(scope="session")
def postgresql_janitor(postgresql_migrated: str) -> Iterator[psycopg.Connection]:
    """Who empties that database."""
    with psycopg.connect(postgresql_migrated, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the schema and nothing else."""
    path = tmp_path_factory.mktemp("template") / "control-plane.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.dispose()
    return path


@pytest.fixture(scope="session")
def sqlite_path() -> Iterator[Path]:
    """Where the SQLite database of one test after the other lies; tests measure behaviour, not a disk."""
    with tempfile.TemporaryDirectory(prefix="allotment-", dir=_IN_MEMORY) as folder:
        yield Path(folder) / "control-plane.db"


@pytest.fixture
def sqlite_url(sqlite_template: Path, sqlite_path: Path) -> str:
    """A fresh SQLite database with the schema."""
    for left in sqlite_path.parent.iterdir():
        left.unlink()  # whoever still has the old file open keeps that, and does not meet the new one
    shutil.copy(sqlite_template, sqlite_path)
    return f"sqlite:///{sqlite_path}"


@pytest.fixture
def postgresql_url(postgresql_migrated: str, postgresql_janitor: psycopg.Connection) -> str:
    """A PostgreSQL database with the schema and nothing in it; emptied, which is faster than made anew."""
    # Whatever an earlier test left running must not hold this one up.
    postgresql_janitor.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
    )
    postgresql_janitor.execute(_EMPTY)
    return postgresql_migrated


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="session")
def databases() -> Iterator[dict[str, Database]]:
    """By URL: a test finds the statements compiled, and PostgreSQL's connections open, that those before it needed."""
    databases: dict[str, Database] = {}
    yield databases
    for database in databases.values():
        database.dispose()


@pytest.fixture
def database(database_url: str, databases: dict[str, Database]) -> Iterator[Database]:
    if database_url not in databases:
        databases[database_url] = Database(database_url)
    database = databases[database_url]
    yield database
    if database.is_sqlite:
        database.dispose()  # the next test's file is another one


class Caller:
    """Calls the application as the holder of one token."""

    def __init__(self, client: TestClient[Litestar], token: str) -> None:
        self.client = client
        self.token = token

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **options)

    def get(self, path: str, **options: Any) -> Any:
        return self._answer(self("GET", path, **options))

    def put(self, path: str, body: object) -> Any:
        return self._answer(self("PUT", path, json=body))

    def post(self, path: str, body: object) -> Any:
        return self._answer(self("POST", path, json=body))

    def delete(self, path: str) -> Any:
        return self._answer(self("DELETE", path))

    @staticmethod
    def _answer(response: httpx.Response) -> Any:
        assert response.is_success, (response.status_code, response.text)
        return response.json()


@dataclass(frozen=True)
class Tokens:
    """A good token of every role; the agent's belongs to the agent ``agent-1``."""

    admin: str
    support: str
    agent: str
    join: str
    ingest: str
    metrics: str


@pytest.fixture
def tokens(database: Database, clock: FakeClock) -> Tokens:
    def work(connection: Connection) -> Tokens:
        agents.add(connection, "agent-1", "agent-1", clock.now_ms())
        texts = {}
        for role in Role:
            order = TokenOrder(role, role.value, agent="agent-1" if role is Role.AGENT else None)
            _, texts[role.value] = issue(
                connection, order, random_id(), random_secret(), actor="test", now_ms=clock.now_ms()
            )
        return Tokens(**texts)

    return database.run(work)


@pytest.fixture(scope="session")
def spare_apps() -> list[Litestar]:
    """Applications that were shut down: reading all routes takes longer than most tests do."""
    return []


@pytest.fixture
def app(spare_apps: list[Litestar], database: Database, clock: FakeClock) -> Iterator[Litestar]:
    """One that knows nothing but its database and its clock."""
    app = spare_apps.pop() if spare_apps else create_app(database, clock)
    app.state = new_state(database, clock)
    yield app
    spare_apps.append(app)


@pytest.fixture
def client(app: Litestar) -> Iterator[TestClient[Litestar]]:
    """Calls the application without a token."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def admin(client: TestClient[Litestar], tokens: Tokens) -> Caller:
    return Caller(client, tokens.admin)


@pytest.fixture
def support(client: TestClient[Litestar], tokens: Tokens) -> Caller:
    return Caller(client, tokens.support)
