"""Several replicas that start, and several admins that say the same, at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from control_plane.operations.author import Author
from control_plane.operations.change_customer import put_customer
from control_plane.store import audit_log, customers
from control_plane.store.database import Database
from control_plane.store.file_claim import FileClaimed


def at_once(*works: Callable[[], object]) -> None:
    """Run each in a thread of its own, begun together; any error is this test's."""
    start = threading.Barrier(len(works))
    errors: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            start.wait(timeout=10)
            work()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert errors == []


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a schema."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    server: str = request.getfixturevalue("postgresql_server")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS untouched WITH (FORCE)")
        connection.execute("CREATE DATABASE untouched")
    return server.replace("/postgres?", "/untouched?")


def test_replicas_that_start_together_migrate_once(empty_url: str) -> None:
    replicas = [Database(empty_url) for _ in range(3)]
    assert not replicas[0].is_current()
    at_once(*(replica.migrate for replica in replicas))
    assert all(replica.is_current() for replica in replicas)
    for replica in replicas:
        replica.dispose()


def test_admins_that_say_the_same_at_once_make_one_change(database: Database) -> None:
    author = Author("0123456789ab", 1)
    at_once(*(lambda: database.run(lambda c: put_customer(c, "acme", "Acme", author)) for _ in range(4)))
    assert [row.version for row in database.read(lambda connection: customers.after(connection, "", 10))] == [1]
    assert len(database.read(lambda connection: audit_log.before(connection, None, 10, "acme"))) == 1


def test_a_file_is_claimed_by_one_and_free_after_it(sqlite_url: str, postgresql_url: str) -> None:
    first, second = Database(sqlite_url), Database(sqlite_url)
    with first.claim():
        with pytest.raises(FileClaimed, match="PostgreSQL serves any number"):
            second.claim()
        assert second.is_current()  # commands beside the server are welcome
    with second.claim():
        pass
    shared = [Database(postgresql_url) for _ in range(2)]
    with shared[0].claim(), shared[1].claim():
        assert shared[0].is_current()
    for database in (first, second, *shared):
        database.dispose()
