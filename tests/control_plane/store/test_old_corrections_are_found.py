"""Events that an older program took in say after the migration what they correct."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from alembic import command
from sqlalchemy import text

from control_plane.store import events, migrate
from control_plane.store.database import Connection, Database
from protocol.codec import encode_msgpack
from protocol.events import UsageEvent

INSERT = text(
    "INSERT INTO events (customer, event, journal, boot, seq, agent, feature, at_ms, received_at_ms, digest, body)"
    " VALUES ('acme', :event, 'j', 1, :seq, 'a', 'chat', 1, :seq, :digest, :body)"
)
OLD = [
    UsageEvent("call", "acme", "chat", 1, {"requests": 1}),
    UsageEvent("call~2", "acme", "chat", 1, {"requests": 0}, corrects="call"),
    UsageEvent("call~1", "acme", "chat", 1, {"requests": 0}, corrects="call"),
    UsageEvent("a~name", "acme", "chat", 1, {"requests": 1}),
]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_old_corrections_are_found_in_the_order_in_which_they_came(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    if kind == "postgresql":
        server: str = request.getfixturevalue("postgresql_server")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS old_events WITH (FORCE)")
            connection.execute("CREATE DATABASE old_events")
        url = server.replace("/postgres?", "/old_events?")
    database = Database(url)

    def begin(connection: Connection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for seq, event in enumerate(OLD, 1):
            row = {"event": event.event, "seq": seq, "digest": b"d" * 32, "body": encode_msgpack(event)}
            connection.execute(INSERT, row)

    with database.transaction() as connection:
        begin(connection)
    database.migrate()
    first = database.read(lambda connection: events.first_words(connection, "acme", 0, 2, None, 9))
    assert [kept.event for kept in first] == ["a~name", "call"]
    said = database.read(lambda connection: list(events.corrections(connection, "acme", ["call"])))
    assert [(kept.event, kept.corrects) for kept in said] == [("call~2", "call"), ("call~1", "call")]
    database.dispose()
