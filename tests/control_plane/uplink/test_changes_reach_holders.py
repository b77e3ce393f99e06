"""What a change of plan, a pause, or time itself does to leases that are out."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from control_plane.operations.reclaim_leases import SWEEPS, close_beyond_window, expire_silent, leave_lost_in_limbo
from control_plane.store import changes, tables
from control_plane.store.database import Database
from protocol.leases import LeaseReport, Recall
from protocol.uplink_messages import CustomerSync


@pytest.fixture
def day(world: Any) -> Any:
    limit = world.limit(amount=1_000)
    world.customer("acme", limit)
    return limit


def sweep(world: Any, step: Any) -> int:
    return world.database.run(lambda connection: step(connection, world.clock.now_ms()))


def status(world: Any, lease: str) -> str:
    query = select(tables.leases.c.status).where(tables.leases.c.lease == lease)
    return world.read(lambda connection: connection.execute(query).scalar_one())


def kinds(world: Any, after: int = 0) -> list[str]:
    return [row.kind for row in world.read(lambda connection: changes.after(connection, after, 1_000))]


def test_a_downgrade_asks_back_what_is_lent_beyond_it_with_the_new_entitlement(world: Any, day: Any) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", day, 500)
    world.customer("acme", world.limit(amount=400))
    reply = agent.sync(CustomerSync("acme", 1))
    assert reply.entitlements[0].limits[0].amount == 400
    assert reply.recalls == (Recall(lease.lease, 0),)
    assert agent.ask("acme", day, 1).denials
    agent.report(LeaseReport(lease.lease, 100, settled=100))
    assert agent.borrow("acme", day, 1)


@pytest.mark.parametrize("status", ["paused"])
def test_a_pause_asks_everything_back(world: Any, day: Any, status: str) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", day, 500)
    world.customer("acme", day, status=status)
    reply = agent.report(LeaseReport(lease.lease, 500, settled=10))
    assert reply.recalls == (Recall(lease.lease, 0),)


def test_a_plan_change_clears_no_usage(world: Any, day: Any) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", day, 500)
    agent.report(LeaseReport(lease.lease, 500, settled=500, closed=True))
    world.customer("acme", world.limit(amount=600, key="renamed"))
    assert agent.ask("acme", day, 101).denials
    assert agent.borrow("acme", day, 100)


def test_silence_is_noticed_and_frees_nothing(world: Any, day: Any) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", day, 900)
    world.clock.advance(60_000)
    assert sweep(world, expire_silent) == 0  # the holder's clock may be slower than ours
    world.clock.advance(600)
    assert sweep(world, expire_silent) == 1
    assert status(world, lease.lease) == "expired"
    assert world.agent().ask("acme", day, 200).denials
    world.clock.advance(600_000)
    assert sweep(world, leave_lost_in_limbo) == 1
    assert status(world, lease.lease) == "limbo"
    agent.report(LeaseReport(lease.lease, 900, settled=5))
    assert status(world, lease.lease) == "open"


def test_rights_die_with_their_window_and_count_as_used(world: Any) -> None:
    minute = world.limit(amount=100, window="minute")
    world.customer("acme", minute)
    agent = world.agent()
    lease = agent.borrow("acme", minute, 40)
    world.clock.advance(120_000)
    assert sweep(world, close_beyond_window) == 0
    world.clock.advance(600_000)
    assert sweep(world, close_beyond_window) == 1
    assert status(world, lease.lease) == "closed"
    assert world.books() == []
    assert agent.report(LeaseReport(lease.lease, 40, settled=10)).closed == (lease.lease,)
    assert agent.borrow("acme", minute, 100)


def test_sweeping_twice_changes_nothing(world: Any, day: Any) -> None:
    world.agent().borrow("acme", day, 40)
    world.clock.advance(10**9)
    for _ in range(2):
        counts = [sweep(world, step) for step in SWEEPS]
    assert counts == [0] * len(SWEEPS)


def test_replicas_that_sweep_after_a_window_leave_the_next_one_as_it_is(world: Any) -> None:
    """Other gateways reset counters by a job; the second replica's then wipes what the new window has used already."""
    hour = world.limit(amount=100, window="hour")
    world.customer("acme", hour)
    agent = world.agent()
    lost = world.agent().borrow("acme", hour, 40)  # whose holder is never heard of again
    world.clock.advance(lost.window_left_ms + 11 * 60_000)
    agent.upload(world.event("acme", {"requests": 70}))
    other = type(world)(Database(world.database.url.render_as_string(hide_password=False)), world.clock)
    counts = []
    for replica in (world, other, world):
        counts.append(sum(sweep(replica, step) for step in SWEEPS))
        assert agent.ask("acme", hour, 31).denials
        assert world.books() == []
    other.database.dispose()
    assert counts[0] > 0
    assert status(world, lost.lease) == "closed"
    assert agent.borrow("acme", hour, 30)


def test_capacity_that_comes_back_is_announced_when_somebody_was_short(world: Any, day: Any) -> None:
    rich, poor = world.agent(), world.agent()
    lease = rich.borrow("acme", day, 990)
    rich.report(LeaseReport(lease.lease, 980, settled=0))
    assert changes.RETURNED not in kinds(world)  # nobody had asked in vain
    poor.ask("acme", day, 100)
    assert kinds(world).count(changes.RECALL) == 1
    poor.ask("acme", day, 100)
    assert kinds(world).count(changes.RECALL) == 1  # not twice in half a second
    rich.report(LeaseReport(lease.lease, 0, settled=0))
    assert changes.RETURNED in kinds(world)


def test_the_feed_keeps_its_newest_row(world: Any, day: Any) -> None:
    before = world.read(changes.bounds)
    world.database.run(lambda connection: changes.prune(connection, world.clock.now_ms() + 1))
    assert world.read(changes.bounds) == (before.newest, before.newest)


def test_an_hour_that_begins_counts_no_call_of_the_hour_before(world: Any) -> None:
    hour = world.limit(amount=100, window="hour")
    world.customer("acme", hour)
    agent = world.agent()
    lease = agent.borrow("acme", hour, 60)
    world.clock.advance(lease.window_left_ms + 1_000)
    agent.upload(world.event("acme", {"requests": 60}, [lease]))
    assert agent.borrow("acme", hour, 100)
    assert world.books() == []


def test_what_comes_back_after_a_downgrade_to_nothing_is_announced_to_nobody(world: Any, day: Any) -> None:
    """Else a fleet hears of each of its own returns: two hundred agents would be woken two hundred times."""
    first, second = world.agents(2)
    leases = [agent.borrow("acme", day, 300).lease for agent in (first, second)]
    assert first.ask("acme", day, 600).denials, "somebody waits"
    world.customer("acme", world.limit(amount=0))
    after = len(kinds(world))
    first.sync(CustomerSync("acme", 1))
    for agent, lease in zip((first, second), leases, strict=True):
        agent.report(LeaseReport(lease, 0, settled=0, closed=True))
    assert "returned" not in kinds(world)[after:]
    world.customer("acme", day)
    lease = first.borrow("acme", day, 900).lease
    assert second.ask("acme", day, 600).denials
    first.report(LeaseReport(lease, 0, settled=0, closed=True))
    assert kinds(world)[-1] == "returned"
