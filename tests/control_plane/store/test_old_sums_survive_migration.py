"""Sums of usage that an older program kept by user are there by every dimension after the migration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from sqlalchemy import select, text

from control_plane.store import migrate, rollups
from control_plane.store.database import Connection, Database
from control_plane.store.tables import rollups as table

HOUR_MS = rollups.HOUR_MS
OLD = [
    {"hour": hour * HOUR_MS, "user": user, "model": model, "quantity": quantity, "events": quantity // 10}
    for hour, user, model, quantity in [
        (0, "ann", "m", 10),
        (0, "bob", "m", 20),
        (0, "", "m", 40),
        (0, "ann", "n", 80),
        (1, "ann", "m", 160),
    ]
]


@pytest.fixture(params=["sqlite", "postgresql"])
def old_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database as the first release left it."""
    url = f"sqlite:///{tmp_path}/old.db"
    if request.param == "postgresql":
        server: str = request.getfixturevalue("postgresql_server")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS old WITH (FORCE)")
            connection.execute("CREATE DATABASE old")
        url = server.replace("/postgres?", "/old?")
    database = Database(url)

    def begin(connection: Connection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        insert = text(
            'INSERT INTO rollups (customer, hour_ms, meter, feature, model, "user", quantity, events)'
            " VALUES ('acme', :hour, 'requests', 'chat', :model, :user, :quantity, :events)"
        )
        connection.execute(insert, OLD)

    with database.transaction() as connection:
        begin(connection)
    yield database
    database.dispose()


def test_old_sums_are_totals_and_sums_by_user(old_database: Database) -> None:
    old_database.migrate()

    def look(connection: Connection) -> list[tuple[object, ...]]:
        columns = (table.c.dimension, table.c.value, table.c.hour_ms, table.c.model, table.c.quantity, table.c.events)
        return sorted(tuple(row) for row in connection.execute(select(*columns)))

    assert old_database.read(look) == [
        ("", "", 0, "m", 70, 7),
        ("", "", 0, "n", 80, 8),
        ("", "", HOUR_MS, "m", 160, 16),
        ("user", "ann", 0, "m", 10, 1),
        ("user", "ann", 0, "n", 80, 8),
        ("user", "ann", HOUR_MS, "m", 160, 16),
        ("user", "bob", 0, "m", 20, 2),
    ]


def test_new_counters_start_from_old_sums(old_database: Database) -> None:
    old_database.migrate()

    def used(connection: Connection, **whose: str) -> int:
        return rollups.used(connection, "acme", "requests", 0, 2 * HOUR_MS, feature=None, **whose)

    assert old_database.read(used) == 310
    assert old_database.read(lambda connection: used(connection, dimension="user", value="ann")) == 250
    assert old_database.read(lambda connection: used(connection, dimension="user")) == 40
