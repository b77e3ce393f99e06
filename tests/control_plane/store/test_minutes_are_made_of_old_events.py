"""Sums by the minute are made, when they are introduced, of the events that an older program took in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from sqlalchemy import select, text

from control_plane.store import migrate, rollups
from control_plane.store.database import Connection, Database
from control_plane.store.usage_tables import minute_rollups
from protocol.codec import encode_msgpack
from protocol.events import UsageEvent

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
NOW_MS = time.time_ns() // 1_000_000
TODAY = NOW_MS - NOW_MS % HOUR_MS - 5 * HOUR_MS
LONG_AGO = TODAY - 401 * DAY_MS  # records are kept for 400 days
INSERT = text(
    "INSERT INTO events (customer, event, journal, boot, seq, agent, feature, at_ms, received_at_ms, digest, body)"
    " VALUES (:customer, :event, 'j', 1, :seq, 'a', :feature, :at_ms, :seq, :digest, :body)"
)
Sums = dict[tuple[str, int, str, str, str], tuple[int, int]]
Migrated = Callable[[list[UsageEvent]], Database]


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Migrated]:
    """A database that took in these events before there were sums by the minute, and was brought up to date."""
    url = f"sqlite:///{tmp_path}/old.db"
    if request.param == "postgresql":
        server: str = request.getfixturevalue("postgresql_server")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS old_minutes WITH (FORCE)")
            connection.execute("CREATE DATABASE old_minutes")
        url = server.replace("/postgres?", "/old_minutes?")
    database = Database(url)

    def prepare(events: list[UsageEvent]) -> Database:
        with database.transaction() as connection:
            config = migrate._config()
            config.attributes["connection"] = connection
            command.upgrade(config, "0004")
            for seq, event in enumerate(events, 1):
                kept = {name: getattr(event, name) for name in ("customer", "event", "feature", "at_ms")}
                connection.execute(INSERT, {**kept, "seq": seq, "digest": b"d" * 32, "body": encode_msgpack(event)})
        database.migrate()
        return database

    yield prepare
    database.dispose()


def sums(database: Database) -> Sums:
    def look(connection: Connection) -> Sums:
        rows = connection.execute(select(minute_rollups)).all()
        return {(r.customer, r.minute_ms, r.meter, r.feature, r.model): (r.quantity, r.events) for r in rows}

    return database.read(look)


def event(name: str, at_ms: int, customer: str = "acme", tokens: int = 0, **more: object) -> UsageEvent:
    amounts = {"requests": 1, "input_tokens": tokens} if tokens else {"requests": 1}
    return UsageEvent(name, customer, "chat", at_ms, amounts, **more)  # type: ignore[arg-type]


def test_every_event_counts_in_its_own_minute_by_meter_and_model(migrated: Migrated) -> None:
    database = migrated(
        [
            event("a", TODAY, tokens=10, model="m"),
            event("b", TODAY + MINUTE_MS - 1, tokens=20, model="m"),
            event("c", TODAY + MINUTE_MS, tokens=40, model="m"),
            event("d", TODAY, tokens=80),
            event("e", TODAY, "zeta"),
        ]
    )
    assert sums(database) == {
        ("acme", TODAY, "requests", "chat", "m"): (2, 2),
        ("acme", TODAY, "input_tokens", "chat", "m"): (30, 2),
        ("acme", TODAY + MINUTE_MS, "requests", "chat", "m"): (1, 1),
        ("acme", TODAY + MINUTE_MS, "input_tokens", "chat", "m"): (40, 1),
        ("acme", TODAY, "requests", "chat", ""): (1, 1),
        ("acme", TODAY, "input_tokens", "chat", ""): (80, 1),
        ("zeta", TODAY, "requests", "chat", ""): (1, 1),
    }
    assert database.read(rollups.minutes_since) == 0, "they are whole for all times"


def test_a_correction_moves_the_sum_and_is_no_event_of_its_own(migrated: Migrated) -> None:
    less = UsageEvent("a~1", "acme", "chat", TODAY, {"requests": 0, "input_tokens": -30}, corrects="a")
    database = migrated([event("a", TODAY, tokens=100), less])
    assert sums(database)["acme", TODAY, "input_tokens", "chat", ""] == (70, 1)


def test_sums_stay_within_what_a_column_holds(migrated: Migrated) -> None:
    database = migrated([event(f"e{at}", TODAY, tokens=2**53 - 1) for at in range(300)])
    assert sums(database)["acme", TODAY, "input_tokens", "chat", ""] == (2**61, 300)


def test_what_is_older_than_records_are_kept_has_no_minutes_and_that_is_said(migrated: Migrated) -> None:
    database = migrated([event("old", LONG_AGO, tokens=5), event("new", TODAY, tokens=7)])
    assert sums(database) == {
        ("acme", TODAY, "requests", "chat", ""): (1, 1),
        ("acme", TODAY, "input_tokens", "chat", ""): (7, 1),
    }
    since_ms = database.read(rollups.minutes_since)
    assert LONG_AGO < since_ms <= NOW_MS - 399 * DAY_MS
    assert since_ms % HOUR_MS == 0, "hours before it are answered by the hour, whole"


def test_new_events_add_to_the_sums_that_were_made(migrated: Migrated) -> None:
    database = migrated([event("a", TODAY, tokens=10)])
    more: rollups.Sums = {("acme", "", "", TODAY, "input_tokens", "chat", ""): [5, 1]}
    database.run(lambda connection: rollups.add(connection, more))
    assert sums(database)["acme", TODAY, "input_tokens", "chat", ""] == (15, 2)


def test_many_events_of_many_customers_are_summed_one_customer_after_the_other(migrated: Migrated) -> None:
    names = [f"c{at % 7}" for at in range(2_500)]
    database = migrated([event(f"e{at}", TODAY + at * MINUTE_MS % DAY_MS, name) for at, name in enumerate(names)])
    found = sums(database)
    for name in set(names):
        mine = [total for (customer, *_), total in found.items() if customer == name]
        assert sum(quantity for quantity, _ in mine) == sum(events for _, events in mine) == names.count(name)


def test_an_empty_database_needs_nothing(migrated: Migrated) -> None:
    database = migrated([])
    assert sums(database) == {}
    assert database.read(rollups.minutes_since) == 0
