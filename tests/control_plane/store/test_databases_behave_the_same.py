"""Transactions, repeats and migrations behave alike on SQLite and PostgreSQL."""

from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, select, update

from control_plane.store import customers as customers_store
from control_plane.store.database import Connection, Database
from control_plane.store.tables import customers, metadata


def bump(connection: Connection, customer: str) -> None:
    """One row changed, by what it holds."""
    changed = update(customers).where(customers.c.customer == customer)
    connection.execute(changed.values(version=customers.c.version + 1))


def test_migrations_lead_to_exactly_the_schema_that_the_tables_say(database: Database) -> None:
    with database.transaction() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    assert database.is_current()


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def work(connection: Connection) -> None:
        customers_store.add(connection, "acme", "Acme", 1)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.run(work)
    assert database.read(lambda connection: customers_store.find(connection, "acme")) is None


def test_threads_that_add_to_one_row_lose_nothing(database: Database) -> None:
    database.run(lambda connection: customers_store.add(connection, "acme", "Acme", 1))

    def bump_many() -> None:
        for _ in range(25):
            database.run(lambda connection: bump(connection, "acme"))

    threads = [threading.Thread(target=bump_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    found = database.read(lambda connection: customers_store.find(connection, "acme"))
    assert found is not None
    assert found.version == 101


def test_a_deadlock_is_repeated_until_both_sides_are_done(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    for name in ("a", "b"):
        database.run(lambda connection, name=name: customers_store.add(connection, name, name, 1))
    both_hold_one = threading.Barrier(2)
    attempts: list[str] = []

    def touch(first: str, second: str) -> None:
        def work(connection: Connection) -> None:
            attempts.append(first)
            bump(connection, first)
            if len(attempts) <= 2:
                both_hold_one.wait(timeout=10)
            bump(connection, second)

        database.run(work)

    threads = [threading.Thread(target=touch, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    versions = database.read(lambda connection: [row.version for row in customers_store.after(connection, "", 9)])
    database.dispose()
    assert versions == [3, 3]
    assert len(attempts) == 3


def test_a_read_does_not_wait_for_the_writer(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(
            insert(customers).values(customer="acme", name="", version=1, created_at_ms=1, archived_at_ms=None)
        )
        assert database.read(lambda other: customers_store.find(other, "acme")) is None


def test_a_connection_that_was_cut_is_replaced_and_the_work_repeated(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    runs: list[int] = []

    def work(connection: Connection) -> int:
        runs.append(1)
        if len(runs) == 1:
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        return connection.execute(select(1)).scalar_one()

    assert database.run(work) == 1
    assert len(runs) == 2
    database.dispose()


def test_foreign_writers_of_the_file_are_waited_for(sqlite_url: str) -> None:
    first, second = Database(sqlite_url), Database(sqlite_url)
    first.run(lambda connection: customers_store.add(connection, "acme", "Acme", 1))
    started = threading.Event()

    def write() -> None:
        started.set()
        second.run(lambda connection: bump(connection, "acme"))

    thread = threading.Thread(target=write)
    with first.transaction() as connection:
        connection.execute(update(customers).values(version=5))
        thread.start()
        assert started.wait(timeout=5)
    thread.join(timeout=15)
    found = first.read(lambda connection: customers_store.find(connection, "acme"))
    first.dispose()
    second.dispose()
    assert found is not None
    assert found.version == 6
