"""Two replicas, one of which dies or loses its database at any statement: the agent says it again to the other, and
nothing has happened twice or been lost; whoever answers never answers with a fault of its own."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient
from sqlalchemy import event, select

from control_plane.app import create_app
from control_plane.operations.sync_agent import Synced, sync_agent
from control_plane.store import tables
from control_plane.store.database import Connection, Database
from protocol.codec import encode_msgpack
from protocol.entitlements import Limit, Scope
from protocol.events import Subject
from protocol.leases import LeaseReport
from protocol.uplink_messages import SYNC_PATH, Ask, CustomerSync, FirstCall, SyncReply, SyncRequest

_names = itertools.count(1)
SHOWN = {
    "allowances": ("counter", "scope_value", "posted", "direct", "outstanding", "burst_lent", "level"),
    "leases": ("counter", "scope_value", "granted", "cap", "settled", "in_flight", "status", "burst", "level"),
    "entries": ("counter", "scope_value", "kind", "amount", "released", "cause"),
    "events": ("feature",),
    "rollups": ("dimension", "value", "meter", "quantity", "events"),
}


class DiedError(BaseException):
    """The process is gone: nobody catches this."""


class Counting(threading.local):
    """Statements so far, by thread: the background has transactions of its own."""

    count = 0


@contextmanager
def trouble(database: Database, at: int, strike: Callable[[Any, str], str]) -> Iterator[list[int]]:
    """While this lasts, ``strike`` is called at statement number ``at`` of each transaction, the commit included.

    Yields: the number of statements of the longest transaction, and how often it struck.
    """
    counts = [0, 0]
    engine = database._engine
    here = Counting()

    def begin(_: Connection) -> None:
        here.count = 0

    def execute(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> tuple[str, Any]:
        here.count += 1
        counts[0] = max(counts[0], here.count)
        if here.count == at:
            counts[1] += 1
            return strike(cursor, statement), () if database.is_sqlite else parameters
        return statement, parameters

    def commit(connection: Connection) -> None:
        if here.count < at:
            counts[1] += 1
            strike(connection.connection.cursor(), "")

    hooks = (("begin", begin, False), ("before_cursor_execute", execute, True), ("commit", commit, False))
    for name, hook, replaces in hooks:
        event.listen(engine, name, hook, **({"retval": True} if replaces else {}))
    try:
        yield counts
    finally:
        for name, hook, _ in hooks:
            event.remove(engine, name, hook)


def die(_: Any, __: str) -> str:
    raise DiedError


def fail(cursor: Any, statement: str) -> str:
    """The server goes away (PostgreSQL); the file cannot be read for a moment (SQLite)."""
    if hasattr(cursor.connection, "pgconn"):
        cursor.connection.close()
        return statement
    return "SELECT fails()"


class Told:
    """One agent with a full exchange to say for one fresh customer after the other."""

    def __init__(self, world: Any, database: Database) -> None:
        self.world = world
        self.database = database
        self.sequence = 0

    def prepare(self) -> tuple[str, SyncRequest]:
        """A new customer of whom the agent holds a lease, and what it says of it next."""
        customer = f"c{next(_names)}"
        day = self.world.limit(amount=1_000)
        limits: tuple[Limit, ...] = (
            day,
            self.world.limit("input_tokens", 5_000, "hour", scope=Scope.USER),
            self.world.limit(amount=50, window="in_flight", key="slots"),
            self.world.limit("input_tokens", 600, "minute", smooth=True, key="rate"),
        )
        self.world.customer(customer, *limits)
        ask = Ask(f"{customer}-lease", day.counter, "", 10)
        first = self.say((CustomerSync(customer, 0, asks=(ask,)),), snapshot=self.sequence == 0)
        reply = self.answer(self.database, first)
        (grant,) = reply.grants
        used = [
            self.world.event(customer, {"requests": 4, "input_tokens": 40}, [], paid=()),
            self.world.event(customer, {"requests": 3}, [grant], subject=Subject(user="ann")),
        ]
        batch = self.world.batch(1, self.sequence + 1, used)
        self.sequence += len(used)
        call = FirstCall(f"{customer}-first", "chat", Subject(user="ann"), {"requests": 1, "input_tokens": 50})
        more = Ask(f"{customer}-more", day.counter, "", 5, 60, 1)
        report = LeaseReport(grant.lease, grant.amount, 3, closed=True)
        return customer, self.say((CustomerSync(customer, 0, (call,), (more,)),), (report,), (batch,))

    def say(self, customers: Any, leases: Any = (), batches: Any = (), *, snapshot: bool = False) -> SyncRequest:
        return SyncRequest("journal-1", 1, "nonce-1", customers, leases, batches, snapshot)

    def answer(self, replica: Database, request: SyncRequest) -> SyncReply:
        now_ms = self.world.clock.now_ms()
        outcome = replica.run(lambda connection: sync_agent(connection, "agent-1", request, now_ms))
        assert isinstance(outcome, Synced)
        return outcome.reply

    def state(self, customer: str) -> dict[str, list[Any]]:
        def look(connection: Connection) -> dict[str, list[Any]]:
            found = {}
            for name, columns in SHOWN.items():
                table = tables.metadata.tables[name]
                query = select(*(table.c[column] for column in columns)).where(table.c.customer == customer)
                found[name] = sorted(tuple(row) for row in connection.execute(query))
            return found

        return self.database.read(look)


@pytest.fixture
def other(database_url: str) -> Iterator[Database]:
    """The replica that has trouble."""
    other = Database(database_url, pause=lambda _: None)
    yield other
    other.dispose()


@pytest.fixture
def told(world: Any, database: Database, tokens: Any) -> Told:
    del tokens  # they come with the agent
    return Told(world, database)


def statements(told: Told, other: Database) -> tuple[int, dict[str, list[Any]]]:
    """How many statements the exchange has, and what it leaves."""
    customer, request = told.prepare()
    with trouble(other, 10**9, lambda _, statement: statement) as counts:
        reply = told.answer(other, request)
    assert (len(reply.grants), reply.denials) == (5, ())
    return counts[0], told.state(customer)


def test_a_replica_that_dies_at_any_statement_leaves_nothing_undone_or_done_twice(told: Told, other: Database) -> None:
    count, expected = statements(told, other)
    assert count > 20
    for at in range(1, count + 2):
        customer, request = told.prepare()
        with trouble(other, at, die) as counts, pytest.raises(DiedError):
            told.answer(other, request)
        assert counts[1] == 1
        told.answer(told.database, request)
        assert told.state(customer) == expected, at
        told.answer(other, request)  # and once more, to the other: it was heard already
        assert told.state(customer) == expected, at
    assert told.world.books() == []


def test_a_replica_that_loses_its_database_at_any_statement_answers_with_no_fault_of_its_own(
    told: Told, other: Database, clock: Any, tokens: Any
) -> None:
    count, expected = statements(told, other)
    headers = {"Content-Type": "application/msgpack", "Authorization": f"Bearer {tokens.agent}"}
    said: set[int] = set()
    with TestClient(create_app(other, clock), raise_server_exceptions=False) as client:

        def send(request: SyncRequest) -> Any:
            return client.post(SYNC_PATH, content=encode_msgpack(request), headers=headers)

        assert send(told.say(())).status_code == 200  # who shows the token is known from here on
        for at in range(1, count + 2):
            customer, request = told.prepare()
            with trouble(other, at, fail) as counts:
                answer = send(request)
            assert counts[1] >= 1
            said.add(answer.status_code)
            assert answer.status_code in {200, 503}, (at, answer.text)
            answer = send(request)
            assert answer.status_code == 200
            assert msgspec.msgpack.decode(answer.content, type=SyncReply).high_water[0].seq == told.sequence
            assert told.state(customer) == expected, at
    assert 503 in said
    assert told.world.books() == []
