"""What is long over is forgotten: tables stop growing, balances and usage stay, and the books stay right."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from control_plane.operations.forget_old import DAY_MS, RETENTION_MS, forget_old
from control_plane.operations.reclaim_leases import SWEEPS
from control_plane.operations.sync_agent import TurnedAway
from control_plane.store import allowances, tables
from protocol.leases import LeaseReport

HISTORY = ("allowances", "leases", "entries", "incarnations")


def rows(world: Any, name: str) -> int:
    count = select(func.count()).select_from(tables.metadata.tables[name])
    return world.read(lambda connection: connection.execute(count).scalar_one())


def charged(world: Any, limit: Any) -> int:
    found = world.read(lambda connection: list(allowances.all_rows(connection)))
    return sum(row.posted + row.direct for row in found if row.key.counter == limit.counter)


def forget(world: Any) -> None:
    forget_old(world.database, world.clock.now_ms() - RETENTION_MS)


def live_a_day(world: Any, limits: Any) -> None:
    """An agent with a disk of its own borrows of every limit, uses some, gives back the rest, and is gone."""
    agent = world.agent()
    for limit in limits:
        grant = agent.borrow("acme", limit, 10, demand_per_min=0)
        event = world.event("acme", {limit.meter: 4}, [grant])
        agent.seq += 1
        agent.sync(batches=[world.batch(1, agent.seq, [event])], leases=[LeaseReport(grant.lease, 10, 4, closed=True)])
    agent.upload(world.event("acme", {"requests": 1}))
    world.clock.advance(DAY_MS)
    for step in SWEEPS:
        world.database.run(lambda connection, step=step: step(connection, world.clock.now_ms()))


def test_what_is_over_is_forgotten_and_what_counts_is_kept(world: Any) -> None:
    day, ever = world.limit(amount=100), world.limit(amount=10_000, window="lifetime", key="ever")
    slots = world.limit(amount=100, window="in_flight", key="slots")
    world.customer("acme", day, ever, slots)
    for _ in range(3):
        live_a_day(world, (day, ever))
    lasting = world.agent()
    held = lasting.borrow("acme", ever, 10)
    forget(world)
    before = {name: rows(world, name) for name in HISTORY}
    assert before["leases"] == 7
    used = charged(world, ever)
    world.clock.advance(RETENTION_MS)
    for _ in range(2):
        forget(world)
        assert world.books() == []
    assert (charged(world, day), charged(world, ever)) == (0, used)
    assert rows(world, "leases") == 1  # what is lent stays lent, however old it is
    assert rows(world, "allowances") == 1
    assert rows(world, "entries") <= 5
    assert rows(world, "incarnations") == 1
    assert rows(world, "events") == 9
    reply = lasting.report(LeaseReport(held.lease, held.amount, 0, closed=True))
    assert reply.closed == (held.lease,)
    assert world.books() == []


def test_years_of_the_same_leave_tables_of_the_same_size(world: Any) -> None:
    day, ever = world.limit(amount=100), world.limit(amount=10_000, window="lifetime", key="ever")
    world.customer("acme", day, ever)
    sizes = []
    for _ in range(3):
        live_a_day(world, (day, ever))
        world.clock.advance(RETENTION_MS)
        forget(world)
        sizes.append([rows(world, name) for name in HISTORY])
        assert world.books() == []
    assert sizes[1] == sizes[2]


def test_a_disk_in_quarantine_and_what_is_still_lent_keep_their_start(world: Any) -> None:
    day = world.limit(amount=100)
    world.customer("acme", day)
    copied = world.agent()
    copied.borrow("acme", day, 10)
    copied.nonce = "another nonce"
    assert isinstance(world.sync(copied.name, copied.request()), TurnedAway)
    assert rows(world, "incarnations") == 1
    world.clock.advance(RETENTION_MS * 2)
    forget(world)
    assert rows(world, "incarnations") == 1
