"""Every odd sync has a stated answer, never a second life of a right, and people see what happened and why."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from control_plane.operations.sync_agent import Synced, TurnedAway
from control_plane.store import tables, troubles
from protocol.codec import encode_msgpack
from protocol.events import EventBatch, Priced
from protocol.leases import LeaseReport
from protocol.uplink_messages import HighWater
from protocol.violations import Violation

ROOT = Path(__file__).parents[3]


@pytest.fixture
def day(world: Any) -> Any:
    limit = world.limit(amount=1_000)
    world.customer("acme", limit)
    return limit


def seen(world: Any, agent: Any) -> dict[str, int]:
    """What people see of an agent's troubles: how often each."""
    found = world.read(lambda connection: troubles.of_agents(connection, [agent.name]))
    return {trouble.code: trouble.times for trouble in found.get(agent.name, [])}


def kept(world: Any) -> list[tuple[str, str, int]]:
    table = tables.event_conflicts.c
    rows = world.read(lambda c: c.execute(select(table.code, table.event, table.seq).order_by(table.seq)).all())
    return [tuple(row) for row in rows]


def actions(world: Any) -> list[str]:
    query = select(tables.audit_log.c.action).order_by(tables.audit_log.c.entry)
    every = world.read(lambda connection: connection.execute(query).scalars().all())
    return [action for action in every if action.startswith(("journal", "database", "events"))]


def statuses(world: Any) -> set[str]:
    return set(world.read(lambda c: c.execute(select(tables.leases.c.status)).scalars().all()))


def counted(world: Any) -> list[str]:
    return list(world.read(lambda c: c.execute(select(tables.events.c.event)).scalars().all()))


def test_a_disk_that_lost_a_lease_it_had_spoken_of_was_rolled_back(world: Any, day: Any) -> None:
    agent = world.agent()
    grant = agent.borrow("acme", day, 10)
    agent.report(LeaseReport(grant.lease, grant.amount, settled=1))
    back = agent.restart()
    event = world.event("acme", {"requests": 1}, event="unsent")
    request = back.request(batches=[world.batch(1, 1, [event])])
    for _ in range(2):
        assert world.sync(agent.name, request) == TurnedAway("quarantined")
    assert statuses(world) == {"limbo"}
    assert kept(world) == [("quarantined", "unsent", 1)], "kept for people to look at, once"
    assert counted(world) == []
    assert actions(world) == ["journal.quarantine"]
    assert seen(world, agent) == {"journal_quarantined": 2}
    assert world.books() == []


def test_a_disk_that_lost_a_grant_nobody_spoke_of_is_an_honest_one(world: Any, day: Any) -> None:
    agent = world.agent()
    agent.borrow("acme", day, 10)
    assert isinstance(world.sync(agent.name, agent.restart().request()), Synced)
    assert statuses(world) == {"closed"}


def test_the_same_number_with_another_body_is_never_applied(world: Any, day: Any) -> None:
    agent = world.agent()
    one, two = (world.event("acme", {"requests": 1}, event=name) for name in ("one", "two"))
    agent.sync(batches=[world.batch(1, 1, [one])])
    assert isinstance(world.sync(agent.name, agent.request(batches=[world.batch(1, 1, [one])])), Synced)
    three = world.event("acme", {"requests": 1}, event="three")
    clone = agent.request(batches=[world.batch(1, 1, [two, three])])
    assert world.sync(agent.name, clone) == TurnedAway("quarantined")
    assert counted(world) == ["one"]
    assert kept(world) == [("quarantined", "two", 1), ("quarantined", "three", 2)]
    assert actions(world) == ["journal.quarantine"]
    assert world.sync(agent.name, agent.request()) == TurnedAway("quarantined")


def test_what_was_accepted_before_a_quarantine_is_not_kept_a_second_time(world: Any, day: Any) -> None:
    agent = world.agent()
    events = [world.event("acme", {"requests": 1}, event=name) for name in ("one", "two")]
    agent.sync(batches=[world.batch(1, 1, events[:1])])
    copy = replace(agent, nonce="another")
    assert world.sync(agent.name, copy.request(batches=[world.batch(1, 1, events)])) == TurnedAway("quarantined")
    assert kept(world) == [("quarantined", "two", 2)]


def test_an_unreadable_batch_of_a_quarantined_journal_is_kept_whole(world: Any, day: Any) -> None:
    agent = world.agent()
    agent.sync()
    copy = replace(agent, nonce="another")
    batch = EventBatch(1, 5, 3, 0, b"\xc1 nothing")
    assert world.sync(agent.name, copy.request(batches=[batch])) == TurnedAway("quarantined")
    assert kept(world) == [("quarantined", "", 5)]


def test_counters_that_shrink_are_kept_at_their_maximum_and_noted(world: Any, day: Any) -> None:
    agent = world.agent()
    grant = agent.borrow("acme", day, 10)
    agent.report(LeaseReport(grant.lease, 8, settled=5))
    agent.report(LeaseReport(grant.lease, 10, settled=3))
    row = world.read(lambda c: c.execute(select(tables.leases.c.settled, tables.leases.c.cap)).one())
    assert tuple(row) == (5, 8)
    assert seen(world, agent) == {"counter_shrank": 1}


def test_a_gap_and_a_damaged_batch_are_asked_for_again_and_noted(world: Any, day: Any) -> None:
    agent = world.agent()
    event = world.event("acme", {"requests": 1})
    body = encode_msgpack([event])
    reply = agent.sync(batches=[world.batch(1, 3, [event]), EventBatch(1, 1, 1, 1, body)])
    assert reply.high_water == (HighWater(1, 0),)
    assert seen(world, agent) == {"corrupt_batch": 1, "sequence_gap": 1}


def test_a_call_whose_model_has_no_price_is_counted_and_noted(world: Any, day: Any) -> None:
    agent = world.agent()
    priced = (Priced("credits", "standard@1", known=False),)
    amounts = {"requests": 1, "credits": 9}
    reply = agent.upload(world.event("acme", amounts, derived=("credits",), priced=priced, model="llama"))
    assert reply.event_problems == ()
    assert seen(world, agent) == {"unpriced_model": 1}
    assert world.books() == []


def test_a_start_that_speaks_after_a_newer_one_is_noted(world: Any, day: Any) -> None:
    agent = world.agent()
    agent.sync()
    agent.restart().sync()
    assert world.sync(agent.name, agent.request()).late
    assert seen(world, agent) == {"late_start": 1}


def test_a_lease_of_another_journal_is_of_no_use(world: Any, day: Any) -> None:
    agent = world.agent()
    grant = agent.borrow("acme", day, 10)
    other = replace(agent, journal="another", introduced=False)
    assert other.report(LeaseReport(grant.lease, 10, settled=1)).unknown_leases == (grant.lease,)
    assert seen(world, agent) == {"foreign_lease": 1}


def test_a_start_that_nobody_knows_is_asked_to_introduce_itself(world: Any, day: Any) -> None:
    agent = world.agent()
    assert world.sync(agent.name, agent.request(snapshot=False)) == TurnedAway("snapshot_required")
    assert seen(world, agent) == {"snapshot_missing": 1}
    assert actions(world) == [], "one that never heard of this database says nothing about it"


def test_a_start_that_was_known_and_is_not_shows_that_the_database_was_restored(world: Any, day: Any) -> None:
    agent = world.agent()
    name = agent.sync().generation
    again = agent.restart()
    assert world.sync(agent.name, again.request(snapshot=False, generation=name)) == TurnedAway("snapshot_required")
    assert actions(world) == ["database.restore_noticed"]


@pytest.mark.parametrize("field", ["confirmed", "lost"])
@pytest.mark.parametrize("mark", [HighWater(2, 1), HighWater(0, 1), HighWater(1, 2**60)])
def test_marks_that_cannot_be_are_refused(world: Any, day: Any, field: str, mark: HighWater) -> None:
    agent = world.agent()
    with pytest.raises(Violation, match=field):
        world.sync(agent.name, agent.request(**{field: (mark,)}))


def test_every_trouble_that_is_noted_is_explained_to_people() -> None:
    """Each code that operations note stands in RECOVERY.md, and none that is not noted."""
    noted = re.compile(r'(?:note|doubt_database)\(\s*"([a-z_]+)"|\{"([a-z_]+)": \(1')
    code = "".join(path.read_text() for path in (ROOT / "control_plane" / "operations").glob("*.py"))
    said = {first or second for first, second in noted.findall(code)}
    table = (ROOT / "control_plane" / "RECOVERY.md").read_text()
    assert said == set(re.findall(r"\| `([a-z_]+)` \|$", table, re.MULTILINE))
