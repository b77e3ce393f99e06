"""Whatever is repeated, cut, overlapping, broken or contradictory: every event counts once, and none is lost."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import select

from control_plane.operations.sync_agent import sync_agent
from control_plane.operations.take_custody import take_custody
from control_plane.store import rollups, tables
from protocol.codec import encode_msgpack
from protocol.entitlements import Scope
from protocol.events import EventBatch, Subject
from protocol.leases import LeaseReport
from protocol.uplink_messages import HighWater


def total(world: Any, customer: str = "acme", meter: str = "requests") -> int:
    return world.read(rollups.totals).get((customer, meter), 0)


def conflicts(world: Any) -> list[tuple[str, str]]:
    table = tables.event_conflicts
    query = select(table.c.code, table.c.event).order_by(table.c.conflict)
    return world.read(lambda connection: [tuple(row) for row in connection.execute(query)])


def direct(world: Any, counter: str) -> int:
    table = tables.allowances
    query = select(table.c.direct).where(table.c.counter == counter)
    return world.read(lambda connection: connection.execute(query).scalar_one())


@pytest.fixture
def acme(world: Any) -> Any:
    day = world.limit(amount=1_000)
    world.customer("acme", day)
    return day


def test_batches_may_overlap_and_come_twice(world: Any, acme: Any) -> None:
    agent = world.agent()
    events = [world.event("acme", {"requests": 1}) for _ in range(6)]
    assert agent.sync(batches=[world.batch(1, 1, events[:4])]).high_water == (HighWater(1, 4),)
    assert agent.sync(batches=[world.batch(1, 1, events[:4])]).high_water == (HighWater(1, 4),)
    assert agent.sync(batches=[world.batch(1, 3, events[2:])]).high_water == (HighWater(1, 6),)
    assert total(world) == 6
    assert world.books() == []


def test_a_gap_is_not_passed_over(world: Any, acme: Any) -> None:
    agent = world.agent()
    events = [world.event("acme", {"requests": 1}) for _ in range(4)]
    assert agent.sync(batches=[world.batch(1, 3, events[2:])]).high_water == (HighWater(1, 0),)
    assert total(world) == 0
    reply = agent.sync(batches=[world.batch(1, 3, events[2:]), world.batch(1, 1, events[:2])])
    assert reply.high_water == (HighWater(1, 4),)
    assert total(world) == 4


def test_a_batch_that_fails_its_checksum_is_left_for_the_agent(world: Any, acme: Any) -> None:
    agent = world.agent()
    good = world.batch(1, 1, [world.event("acme", {"requests": 1})])
    bad = EventBatch(1, 1, 1, good.crc32 ^ 1, good.body)
    reply = agent.sync(batches=[bad])
    assert reply.high_water == (HighWater(1, 0),)
    assert [problem.code for problem in reply.event_problems] == ["corrupt"]
    assert agent.sync(batches=[good]).high_water == (HighWater(1, 1),)
    assert total(world) == 1


def test_one_unreadable_event_does_not_stop_the_others(world: Any, acme: Any) -> None:
    agent = world.agent()
    events = [
        world.event("acme", {"requests": 1}),
        {"event": "x", "amounts": "many"},
        world.event("acme", {"requests": 2}),
    ]
    reply = agent.sync(batches=[world.batch(1, 1, events)])
    assert reply.high_water == (HighWater(1, 3),)
    assert [(problem.seq, problem.code) for problem in reply.event_problems] == [(2, "undecodable")]
    assert total(world) == 3
    assert conflicts(world) == [("undecodable", "")]


@pytest.mark.parametrize("body", [b"\xc1garbage", encode_msgpack({"no": "array"}), encode_msgpack([])])
def test_a_body_that_is_no_array_of_its_events_is_kept_whole(world: Any, acme: Any, body: bytes) -> None:
    agent = world.agent()
    reply = agent.sync(batches=[EventBatch(1, 1, 3, crc32(body), body)])
    assert reply.high_water == (HighWater(1, 3),)
    assert conflicts(world) == [("undecodable", "")]


def test_the_same_event_from_two_agents_counts_once_and_its_second_payment_is_given_back(world: Any, acme: Any) -> None:
    one, two = world.agent(), world.agent()
    leases = [one.borrow("acme", acme, 5), two.borrow("acme", acme, 5)]
    for agent, lease in zip((one, two), leases, strict=True):
        event = world.event("acme", {"requests": 3}, [lease], event="call-1")
        reply = agent.sync(
            leases=[LeaseReport(lease.lease, lease.amount, settled=3, closed=True)],
            batches=[world.batch(1, 1, [event])],
        )
        world.clock.advance(1_000)
    assert [problem.code for problem in reply.event_problems] == ["duplicate"]
    assert total(world) == 3
    assert direct(world, acme.counter) == -3
    assert world.books() == []


def test_other_words_under_the_same_id_are_kept_and_the_first_count(world: Any, acme: Any) -> None:
    agent = world.agent()
    agent.upload(world.event("acme", {"requests": 3}, event="call-1"))
    reply = agent.upload(world.event("acme", {"requests": 4}, event="call-1"))
    assert [problem.code for problem in reply.event_problems] == ["conflict"]
    assert conflicts(world) == [("conflict", "call-1")]
    assert total(world) == 3
    assert world.books() == []


@pytest.mark.parametrize("together", [False, True])
def test_what_leases_paid_for_other_words_under_the_same_id_stays_charged(
    world: Any, acme: Any, together: bool
) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", acme, 10)
    said = [world.event("acme", {"requests": amount}, [lease], event="call-1") for amount in (3, 4)]
    for events in [said] if together else [said[:1], said[1:]]:
        agent.upload(*events)
    agent.report(LeaseReport(lease.lease, lease.amount, settled=7, closed=True))
    table = tables.allowances.c
    charged = world.read(lambda connection: connection.execute(select(table.posted, table.direct)).all())
    assert charged == [(7, 0)]
    assert total(world) == 3
    assert conflicts(world) == [("conflict", "call-1")]
    assert world.books() == []


def test_repetitions_within_one_batch_count_once(world: Any, acme: Any) -> None:
    agent = world.agent()
    said = [world.event("acme", {"requests": amount}, event="call-1") for amount in (3, 3, 4)]
    reply = agent.upload(*said)
    assert [problem.code for problem in reply.event_problems] == ["duplicate", "conflict"]
    assert total(world) == 3


def test_events_of_unknown_customers_are_kept(world: Any, acme: Any) -> None:
    agent = world.agent()
    reply = agent.upload(world.event("nobody", {"requests": 1}), world.event("acme", {"requests": 1}))
    assert [problem.code for problem in reply.event_problems] == ["unknown_customer"]
    assert reply.high_water == (HighWater(1, 2),)
    assert total(world) == 1


def test_what_no_lease_paid_is_debited_and_a_correction_gives_back(world: Any, acme: Any) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", acme, 5)
    agent.upload(world.event("acme", {"requests": 7}, paid=((lease.lease, 5),), event="call-1"))
    assert direct(world, acme.counter) == 2
    agent.upload(world.event("acme", {"requests": -3}, corrects="call-1"))
    assert direct(world, acme.counter) == -1
    assert total(world) == 4
    assert world.books() == []


@pytest.mark.parametrize("said", [{"amounts": {"requests": -1}}, {"amounts": {"requests": 1}, "tokens": {"input": -1}}])
def test_a_negative_amount_that_corrects_nothing_is_kept_for_people(world: Any, acme: Any, said: Any) -> None:
    reply = world.agent().upload(world.event("acme", **said))
    assert [problem.code for problem in reply.event_problems] == ["negative"]
    assert total(world) == 0


def test_a_lease_of_another_agent_pays_for_nothing(world: Any, acme: Any) -> None:
    lease = world.agent().borrow("acme", acme, 5)
    world.agent().upload(world.event("acme", {"requests": 5}, [lease]))
    assert direct(world, acme.counter) == 5


def test_usage_of_a_user_goes_to_their_own_counter(world: Any) -> None:
    world.customer("acme", world.limit(amount=100, scope=Scope.USER))
    world.agent().upload(world.event("acme", {"requests": 5}, subject=Subject(user="ann")))
    query = select(tables.allowances.c.scope_value, tables.allowances.c.direct)
    assert world.read(lambda connection: [tuple(row) for row in connection.execute(query)]) == [("ann", 5)]


def test_absurd_amounts_never_stop_an_agent(world: Any, acme: Any) -> None:
    agent = world.agent()
    largest = 2**53 - 1
    for _ in range(3):
        reply = agent.upload(*[world.event("acme", {"requests": largest}) for _ in range(400)])
    assert reply.high_water == (HighWater(1, 1_200),)
    assert total(world) == 2**61


def test_times_to_come_count_as_near_as_they_may(world: Any, acme: Any) -> None:
    now_ms = world.clock.now_ms()
    agent = world.agent()
    agent.upload(world.event("acme", {"requests": 1}, at_ms=now_ms + 10**9))
    table = tables.events
    query = select(table.c.at_ms).order_by(table.c.at_ms)
    stored = world.read(lambda connection: [row.at_ms for row in connection.execute(query)])
    assert stored == [now_ms + 300_000]


def test_an_event_counts_in_its_own_window_within_the_grace_and_is_kept_as_late_beyond_it(
    world: Any, acme: Any
) -> None:
    now_ms, grace_ms = world.clock.now_ms(), 34 * 86_400_000
    agent = world.agent()
    old = world.event("acme", {"requests": 2}, at_ms=now_ms - grace_ms)
    older = world.event("acme", {"requests": 4}, at_ms=now_ms - grace_ms - 1)
    reply = agent.upload(old, older)
    assert [(problem.seq, problem.code) for problem in reply.event_problems] == [(2, "late")]
    assert conflicts(world) == [("late", older.event)]
    assert total(world) == 2
    window = acme.window_at(old.at_ms)
    table = tables.allowances
    query = select(table.c.window_start_ms, table.c.direct)
    assert world.read(lambda connection: [tuple(row) for row in connection.execute(query)]) == [(window.start_ms, 2)]
    world.clock.advance(1_000)
    reply = world.agent().upload(old)
    assert [problem.code for problem in reply.event_problems] == ["duplicate"], "it was accepted in its time"
    assert world.books() == []


def test_how_late_events_may_come_is_a_setting(world: Any, acme: Any) -> None:
    now_ms = world.clock.now_ms()
    world.database.run(lambda connection: take_custody(connection, None, b"k" * 32, 10, now_ms, grace_days=1))
    event = world.event("acme", {"requests": 1}, at_ms=now_ms - 86_400_001)
    assert [problem.code for problem in world.agent().upload(event).event_problems] == ["late"]


def test_the_events_of_an_earlier_start_go_on_from_where_they_were(world: Any, acme: Any) -> None:
    agent = world.agent()
    events = [world.event("acme", {"requests": 1}) for _ in range(4)]
    agent.sync(batches=[world.batch(1, 1, events[:2])])
    again = agent.restart()
    new = world.event("acme", {"requests": 1})
    reply = again.sync(batches=[world.batch(1, 1, events), world.batch(2, 1, [new])])
    assert reply.high_water == (HighWater(1, 4), HighWater(2, 1))
    assert total(world) == 5


def test_a_thousand_events_are_a_handful_of_statements(world: Any, acme: Any) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", acme, 100)
    events = [world.event("acme", {"requests": 1}, [lease]) for _ in range(1_000)]
    statements: list[str] = []

    def work(connection: Any) -> Any:
        def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            statements.append(statement)

        sqlalchemy_event.listen(connection, "before_cursor_execute", count)
        return sync_agent(
            connection, agent.name, agent.request(batches=[world.batch(1, 1, events)]), world.clock.now_ms()
        )

    world.database.run(work)
    assert total(world) == 1_000
    assert len(statements) < 40
