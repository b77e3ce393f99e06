"""The audit is silent while the books are right, and names the difference when a number was tampered with."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from control_plane.operations.audit_books import check_books
from control_plane.store import tables
from protocol.leases import LeaseReport


def tamper(world: Any, table: str, column: str, by: int, **where: Any) -> None:
    of = tables.metadata.tables[table]
    change = update(of).values({column: of.c[column] + by})
    for name, value in where.items():
        change = change.where(of.c[name] == value)

    def work(connection: Any) -> None:
        assert connection.execute(change).rowcount >= 1

    world.database.run(work)


@pytest.fixture
def books(world: Any) -> Any:
    """A customer whose limits of every kind are lent, and one closed lease with its event."""
    day = world.limit(amount=1_000)
    slots = world.limit(amount=12, window="in_flight", key="slots")
    rate = world.limit(amount=600, window="minute", smooth=True, key="rate")
    world.customer("acme", day, slots, rate)
    world.clock.advance(1_000)
    agent = world.agent()
    grant = agent.borrow("acme", day, 10)
    agent.borrow("acme", slots, 12)
    agent.borrow("acme", rate, 1)
    agent.seq = 1
    event = world.event("acme", {"requests": 4}, [grant])
    report = LeaseReport(grant.lease, grant.amount, 4, closed=True)
    agent.sync(batches=[world.batch(1, 1, [event])], leases=[report])
    assert world.books() == []
    return grant


@pytest.mark.parametrize(
    ("table", "column", "where", "named"),
    [
        ("allowances", "outstanding", {"counter": "*/requests/in_flight/customer"}, "is lent of 12"),
        ("allowances", "outstanding", {"counter": "*/requests/minute-rate/customer"}, "is lent of 600"),
        ("allowances", "posted", {"counter": "*/requests/minute-rate/customer"}, "nothing of it is used up"),
        ("allowances", "burst_lent", {"counter": "*/requests/minute-rate/customer"}, "bursts"),
        ("allowances", "posted", {"counter": "*/requests/day/customer"}, "posted and the ledger"),
        ("entries", "amount", {"kind": "post"}, "events, repetitions and unreported use make 4"),
        ("rollups", "quantity", {"dimension": ""}, "hourly sums and events"),
    ],
)
def test_a_number_that_was_tampered_with_is_named(
    world: Any, books: Any, table: str, column: str, where: dict[str, Any], named: str
) -> None:
    tamper(world, table, column, 1, **where)
    assert any(named in line for line in world.books()), world.books()


def test_use_that_was_reported_and_never_proven_is_a_difference_once_all_was_told(world: Any, books: Any) -> None:
    agent = world.agent()
    grant = agent.borrow("acme", world.limit(amount=1_000), 10)
    agent.report(LeaseReport(grant.lease, grant.amount, 7, closed=True))
    assert world.books() == []
    told = world.read(lambda connection: check_books(connection, told_all=True))
    assert [line for line in told if grant.lease in line] == told != []
