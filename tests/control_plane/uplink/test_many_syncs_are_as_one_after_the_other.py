"""Several syncs in one transaction share what they read; each is answered as if those before it were written down."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from control_plane.operations.learn_again import say_restored
from control_plane.operations.sync_agent import Sync, TurnedAway, sync_agent, sync_agents
from control_plane.operations.take_custody import take_custody
from control_plane.operations.unit_of_work import NotTogether
from control_plane.store import tables
from protocol.leases import LeaseReport
from protocol.uplink_messages import Ask, CustomerSync


def together(world, said):
    """What each is told, which must be what it is told one after the other; ``said``: of each agent its request."""
    now_ms = world.clock.now_ms()
    syncs = [Sync(agent.name, request, now_ms) for agent, request in said]
    alone = world.database.run(lambda connection: [sync_agent(connection, *sync) for sync in syncs], keep=False)
    outcomes = world.database.run(lambda connection: sync_agents(connection, syncs))
    assert outcomes == alone
    assert world.books() == []
    return outcomes


def asks(agent, limit, need, demand_per_min=60, lease=None):
    ask = Ask(lease or f"of-{agent.name}", limit.counter, "", need, demand_per_min, need)
    return agent, agent.request([CustomerSync("acme", 0, asks=(ask,))])


def reports(agent, grant, settled, in_flight=0, *, closed=False):
    return agent, agent.request(leases=[LeaseReport(grant.lease, grant.amount, settled, in_flight, closed=closed)])


@pytest.fixture
def crowd(world):
    """Four agents that have introduced themselves."""
    agents = world.agents(4)
    for agent in agents:
        agent.sync()
    return agents


def test_each_hears_of_what_those_before_it_have_used(world, crowd):
    limit = world.limit(amount=10_000)
    world.customer("acme", limit)
    held = [agent.borrow("acme", limit, 100) for agent in crowd]
    words = [reports(agent, grant, 10 * at, at) for at, (agent, grant) in enumerate(zip(crowd, held, strict=True), 1)]
    outcomes = together(world, words)
    assert [outcome.reply.renewed[0].standing.elsewhere for outcome in outcomes] == [0, 10, 30, 60]


def test_what_is_closed_counts_as_posted_for_those_after_it(world, crowd):
    limit = world.limit(amount=10_000)
    world.customer("acme", limit)
    held = [agent.borrow("acme", limit, 100) for agent in crowd]
    words = [reports(*pair, 50, closed=at < 2) for at, pair in enumerate(zip(crowd, held, strict=True))]
    outcomes = together(world, words)
    assert [outcome.reply.renewed[0].standing.elsewhere for outcome in outcomes[2:]] == [100, 150]


def where_a_share_is_good_for_two_calls_and_not_for_three(world, crowd):
    """A limit of which three agents have lately asked for the same, and one for little."""
    limit = world.limit(amount=180)
    world.customer("acme", limit)
    for agent in crowd:
        agent.ask("acme", limit, 0, demand_per_min=1 if agent is crowd[0] else 600, typical=1_000)
    return limit


def test_once_one_borrows_call_by_call_those_after_it_need_clearly_more_to_borrow_ahead(world, crowd):
    limit = where_a_share_is_good_for_two_calls_and_not_for_three(world, crowd)
    outcomes = together(world, [asks(crowd[0], limit, 10, 1), asks(crowd[1], limit, 10, 600)])
    assert [grant.central for outcome in outcomes for grant in outcome.reply.grants] == [True, True]


def test_once_the_last_that_was_borrowed_call_by_call_is_back_those_after_it_borrow_ahead(world, crowd):
    limit = where_a_share_is_good_for_two_calls_and_not_for_three(world, crowd)
    grant = crowd[0].borrow("acme", limit, 10, demand_per_min=1)
    assert grant.central
    words = [
        asks(crowd[2], limit, 1_000, 600),
        reports(crowd[0], grant, 0, closed=True),
        asks(crowd[1], limit, 10, 600),
    ]
    outcomes = together(world, words)
    assert [grant.central for grant in outcomes[2].reply.grants] == [False]


def test_demand_of_those_before_it_makes_each_ones_share_smaller(world, crowd):
    limit = world.limit(amount=1_000)
    world.customer("acme", limit)
    outcomes = together(world, [asks(agent, limit, 1, 6_000) for agent in crowd])
    amounts = [outcome.reply.grants[0].amount for outcome in outcomes]
    assert amounts == sorted(amounts, reverse=True)
    assert amounts[0] > amounts[-1]


def test_a_recall_reaches_whoever_speaks_later_in_the_same_transaction(world, crowd):
    limit = world.limit(amount=100)
    world.customer("acme", limit)
    rich, poor = crowd[:2]
    grant = rich.borrow("acme", limit, 90)
    outcomes = together(world, [asks(poor, limit, 50), reports(rich, grant, 5)])
    assert outcomes[0].reply.denials
    assert [recall.lease for recall in outcomes[1].reply.recalls] == [grant.lease]


def test_what_one_gives_back_the_next_may_have(world, crowd):
    limit = world.limit(amount=100)
    world.customer("acme", limit)
    grant = crowd[0].borrow("acme", limit, 90)
    outcomes = together(world, [reports(crowd[0], grant, 40, closed=True), asks(crowd[1], limit, 50)])
    assert [grant.amount for grant in outcomes[1].reply.grants] == [50]


def test_what_comes_back_is_announced_by_whoever_brings_it(world, crowd):
    limit = world.limit(amount=100)
    world.customer("acme", limit)
    held = [agent.borrow("acme", limit, 40) for agent in crowd[:2]]
    crowd[2].ask("acme", limit, 60)
    words = [reports(crowd[0], held[0], 0, closed=True), reports(crowd[1], held[1], 1)]
    assert [outcome.news for outcome in together(world, words)] == [True, False]


def test_no_two_are_lent_the_same_rest(world, crowd):
    limit = world.limit(amount=100)
    world.customer("acme", limit)
    outcomes = together(world, [asks(agent, limit, 60) for agent in crowd])
    assert sum(len(outcome.reply.grants) for outcome in outcomes) == 1


def test_shares_of_a_rate_are_fair_to_what_those_before_it_ask_for(world, crowd):
    limit = world.limit(amount=600, window="minute", smooth=True)
    world.customer("acme", limit)
    grant = crowd[2].borrow("acme", limit, 10, demand_per_min=300)
    crowd[2].report(LeaseReport(grant.lease, 0, 0, closed=True))
    outcomes = together(world, [asks(crowd[0], limit, 10, 60), asks(crowd[1], limit, 10, 600)])
    assert [grant.amount for outcome in outcomes for grant in outcome.reply.grants] == [180, 270]


def test_who_notices_a_restore_is_answered_in_a_transaction_of_its_own(world, crowd):
    limit = world.limit(amount=100)
    world.customer("acme", limit)
    name = crowd[0].sync().generation
    stranger = world.agent()
    stranger.sync(snapshot=True, generation=name)
    forgotten = stranger.restart()
    forgotten.introduced = True
    now_ms = world.clock.now_ms()
    syncs = [
        Sync(agent.name, request, now_ms)
        for agent, request in (asks(crowd[0], limit, 1), (forgotten, forgotten.request(generation=name)))
    ]
    with pytest.raises(NotTogether):
        world.database.run(lambda connection: sync_agents(connection, syncs))
    alone = world.database.run(lambda connection: sync_agents(connection, syncs[1:]))
    assert alone == [TurnedAway("snapshot_required")]
    (after,) = world.database.run(lambda connection: sync_agents(connection, syncs[:1]))
    assert after.reply.generation != name
    assert not after.reply.grants


def test_of_two_that_ask_under_one_id_the_second_gets_nothing(world, crowd):
    limit = world.limit(amount=100)
    world.customer("acme", limit)
    outcomes = together(world, [asks(agent, limit, 5, lease="one") for agent in crowd[:2]])
    assert [len(outcome.reply.grants) for outcome in outcomes] == [1, 0]
    assert outcomes[1].reply.unknown_leases == ("one",)


def test_leases_that_a_restored_database_forgot_are_taken_in_beside_those_it_knows(world, database):
    limit = world.limit(amount=10_000)
    world.customer("acme", limit)
    now_ms = world.clock.now_ms()
    database.run(lambda connection: take_custody(connection, None, b"k" * 32, 10, now_ms, grace_days=34))
    crowd = world.agents(3)
    (name,) = {agent.sync().generation for agent in crowd}
    held = [agent.borrow("acme", limit, 100) for agent in crowd]

    def forget(connection):
        gone = [grant.lease for grant in held[1:]]
        for table in (tables.leases, tables.entries):
            connection.execute(delete(table).where(table.c.lease.in_(gone)))
        connection.execute(tables.allowances.update().values(outstanding=held[0].amount))
        say_restored(connection, "operator", "a drill", now_ms + 1)

    database.run(forget)
    world.clock.advance(10)
    words = []
    for agent, grant in zip(crowd, held, strict=True):
        report = LeaseReport(grant.lease, grant.amount, 5)
        words.append((agent, agent.request(leases=[report], sealed=(grant,), snapshot=True, generation=name)))
    outcomes = together(world, words)
    assert [[one.lease for one in outcome.reply.renewed] for outcome in outcomes] == [[grant.lease] for grant in held]
