"""Starts of agents on journals: restarts go on, lost disks stay charged, copied and rolled-back disks are shut out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from control_plane.core.incarnations import Standing, standing
from control_plane.operations.sync_agent import Synced, TurnedAway
from control_plane.store import tables
from protocol.leases import LeaseReport


@pytest.fixture
def day(world: Any) -> Any:
    limit = world.limit(amount=1_000)
    world.customer("acme", limit)
    return limit


def status(world: Any, lease: str) -> str:
    query = select(tables.leases.c.status).where(tables.leases.c.lease == lease)
    return world.read(lambda connection: connection.execute(query).scalar_one())


def left(world: Any, day: Any) -> int:
    table = tables.allowances
    query = select(table.c.posted + table.c.direct + table.c.outstanding).where(table.c.counter == day.counter)
    return day.amount - world.read(lambda connection: connection.execute(query).scalar_one())


def test_the_first_sync_of_a_start_must_be_a_snapshot(world: Any, day: Any) -> None:
    agent = world.agent()
    assert world.sync(agent.name, agent.request(snapshot=False)) == TurnedAway("snapshot_required")
    agent.sync()
    again = agent.restart()
    assert world.sync(agent.name, again.request(snapshot=False)) == TurnedAway("snapshot_required")


def test_a_restart_keeps_what_its_journal_holds_and_gives_back_what_it_never_saw(world: Any, day: Any) -> None:
    agent = world.agent()
    known, unseen = agent.borrow("acme", day, 100), agent.borrow("acme", day, 200)
    again = agent.restart()
    reply = again.report(LeaseReport(known.lease, known.amount, settled=10, unreported=5))
    assert reply.closed == (unseen.lease,)
    assert [renewal.lease for renewal in reply.renewed] == [known.lease]
    assert left(world, day) == 900
    again.report(LeaseReport(known.lease, known.amount, settled=10, unreported=5, closed=True))
    assert left(world, day) == 985
    assert world.books() == []


def test_a_late_message_of_an_earlier_start_is_true_but_gets_nothing_new(world: Any, day: Any) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", day, 100)
    again = agent.restart()
    again.report(LeaseReport(lease.lease, lease.amount, settled=10))
    reply = agent.ask("acme", day, 5, leases=[LeaseReport(lease.lease, lease.amount, settled=20, closed=True)])
    assert not reply.grants
    assert status(world, lease.lease) == "open"
    assert again.report(LeaseReport(lease.lease, lease.amount, settled=10)).renewed


def test_a_lost_disk_leaves_its_leases_charged_until_it_turns_up(world: Any, day: Any) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", day, 100)
    other = replace(agent, journal="another-journal", introduced=False)
    other.sync()
    assert status(world, lease.lease) == "limbo"
    assert left(world, day) == 900
    assert other.report(LeaseReport(lease.lease, 100, settled=1)).unknown_leases == (lease.lease,)
    agent.report(LeaseReport(lease.lease, lease.amount, settled=30, closed=True))
    assert left(world, day) == 970


def test_a_copied_disk_is_quarantined_and_nothing_of_it_is_applied(world: Any, day: Any) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", day, 100)
    copy = replace(agent, nonce="another-nonce")
    request = copy.request(leases=[LeaseReport(lease.lease, lease.amount, settled=50, closed=True)])
    assert world.sync(agent.name, request) == TurnedAway("quarantined")
    assert world.sync(agent.name, agent.request()) == TurnedAway("quarantined")
    assert status(world, lease.lease) == "limbo"
    assert left(world, day) == 900
    new = replace(agent, journal="another-journal", introduced=False)
    assert new.borrow("acme", day, 5)
    assert world.books() == []


def test_a_rolled_back_disk_is_quarantined(world: Any, day: Any) -> None:
    agent = world.agent()
    agent.sync()
    second = agent.restart()
    second.sync()
    rolled_back = replace(agent.restart(), nonce="another-nonce")
    assert world.sync(agent.name, rolled_back.request()) == TurnedAway("quarantined")
    third = second.restart()
    assert world.sync(agent.name, third.request()) == TurnedAway("quarantined")


def test_a_journal_speaks_for_one_agent_only(world: Any, day: Any) -> None:
    agent = world.agent()
    agent.sync()
    thief = replace(world.agent(), journal=agent.journal)
    assert world.sync(thief.name, thief.request()) == TurnedAway("quarantined")
    assert isinstance(world.sync(agent.name, agent.request()), Synced)


def test_a_start_that_was_overtaken_is_refused_without_harm_to_the_next(world: Any, day: Any) -> None:
    agent = world.agent()
    agent.sync()
    second = agent.restart()
    third = second.restart()
    third.sync()
    assert world.sync(agent.name, second.request()) == TurnedAway("quarantined")
    assert isinstance(world.sync(agent.name, third.request()), Synced)


def test_an_agent_nobody_enrolled_is_turned_away(world: Any) -> None:
    agent = world.agent()
    assert world.sync("nobody", agent.request()) == TurnedAway("revoked")


@given(st.dictionaries(st.integers(1, 5), st.sampled_from(["", "a", "b"])), st.integers(1, 6), st.booleans())
def test_two_nonces_for_one_boot_are_never_accepted(known: dict[int, str], boot: int, snapshot: bool) -> None:
    said = standing(known, boot, "a", snapshot=snapshot)
    if known.get(boot) == "b":
        assert said is Standing.COPIED
    elif known.get(boot) == "a":
        assert said in {Standing.CURRENT, Standing.LATE}
    else:
        assert said in {Standing.NEW_BOOT, Standing.NEW_JOURNAL, Standing.SNAPSHOT_REQUIRED, Standing.REFUSED}
