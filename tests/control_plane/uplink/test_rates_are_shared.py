"""A rate is lent as shares that sum to no more than it, level out when one is short, and are freed by the clock."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.operations.reclaim_leases import SWEEPS
from control_plane.store import allowances
from protocol.leases import LeaseReport

SILENT_MS = 61_000


@pytest.fixture
def rate(world: Any) -> Any:
    limit = world.limit("input_tokens", 600, "minute", smooth=True, burst=60)
    world.customer("acme", limit)
    return limit


def row_of(world: Any, limit: Any) -> allowances.Row:
    rows = world.read(lambda connection: list(allowances.all_rows(connection)))
    return next(row for row in rows if row.key.counter == limit.counter)


def sweep(world: Any) -> None:
    for step in SWEEPS:
        world.database.run(lambda connection, step=step: step(connection, world.clock.now_ms()))


def renew(agent: Any, grant: Any, cap: int | None = None, **more: Any) -> Any:
    return agent.report(LeaseReport(grant.lease, grant.amount if cap is None else cap, 0, **more))


def test_a_lone_host_gets_the_whole_rate_and_keeps_it_by_renewing(world: Any, rate: Any) -> None:
    agent = world.agent()
    grant = agent.first_call("acme", {"input_tokens": 5}).grants[0]
    assert (grant.amount, grant.per_ms, grant.burst, grant.level) == (600, 60_000, 60, 60)
    for _ in range(4):
        world.clock.advance(30_000)
        sweep(world)
        assert [renewal.lease for renewal in renew(agent, grant).renewed] == [grant.lease]
    assert row_of(world, rate)[2:5] == (0, 0, 600)
    assert world.books() == []


def test_what_is_used_under_a_rate_is_charged_to_nothing(world: Any, rate: Any) -> None:
    agent = world.agent()
    grant = agent.first_call("acme", {"input_tokens": 5}).grants[0]
    agent.upload(world.event("acme", {"input_tokens": 500}))
    agent.report(LeaseReport(grant.lease, 600, 500, unreported=3, closed=True))
    assert row_of(world, rate)[2:5] == (0, 0, 0)
    assert world.books() == []


def test_a_second_host_brings_the_first_down_to_its_share_and_gets_the_rest(world: Any, rate: Any) -> None:
    first, second = world.agents(2)
    mine = first.first_call("acme", {"input_tokens": 5}).grants[0]
    denial = second.first_call("acme", {"input_tokens": 5}).denials[0]
    assert (denial.exhausted, denial.retry_in_ms) == (False, 250)
    recall = renew(first, mine).recalls[0]
    assert recall.keep == 300
    assert renew(first, mine, 300, level=20).recalls == ()
    grant = second.borrow("acme", rate, 5, demand_per_min=0)
    assert (grant.amount, grant.burst, grant.level) == (300, 30, 20)
    assert row_of(world, rate).outstanding == 600
    assert world.books() == []


def test_small_demands_are_met_and_what_they_leave_goes_to_the_others(world: Any, rate: Any) -> None:
    small, large = world.agents(2)
    renewed = large.borrow("acme", rate, 1, demand_per_min=5_000)
    small.ask("acme", rate, 1, demand_per_min=40)
    assert renew(large, renewed).recalls[0].keep == 560
    renew(large, renewed, 560)
    assert small.borrow("acme", rate, 1, demand_per_min=40).amount == 40


def test_who_has_its_share_is_told_to_wait_for_its_bucket(world: Any, rate: Any) -> None:
    agent = world.agent()
    agent.borrow("acme", rate, 5)
    denial = agent.ask("acme", rate, 5).denials[0]
    assert (denial.exhausted, denial.retry_in_ms) == (False, 5_000)
    assert agent.ask("acme", rate, 61).denials[0].exhausted  # no bucket of this rate ever holds so much


def test_a_silent_holders_share_is_lent_again_and_never_revived(world: Any, rate: Any) -> None:
    silent, other = world.agents(2)
    lost = silent.borrow("acme", rate, 5)
    world.clock.advance(SILENT_MS)
    reply = renew(silent, lost)  # a moment before anybody noticed, and too late all the same
    assert (reply.closed, reply.renewed) == ((lost.lease,), ())
    again = silent.borrow("acme", rate, 5)
    world.clock.advance(SILENT_MS)
    sweep(world)
    assert row_of(world, rate).outstanding == 0
    assert other.borrow("acme", rate, 5).amount == 600
    assert renew(silent, again).closed == (again.lease,)
    assert row_of(world, rate).outstanding == 600
    assert world.books() == []


def test_the_same_ask_again_is_the_same_share(world: Any, rate: Any) -> None:
    agent = world.agent()
    first = agent.borrow("acme", rate, 5, lease="l-1")
    again = agent.borrow("acme", rate, 5, lease="l-1")
    assert (again.amount, again.burst, again.level) == (first.amount, first.burst, first.level)
    assert row_of(world, rate).outstanding == 600


def test_what_was_saved_up_is_not_given_twice(world: Any, rate: Any) -> None:
    first, second = world.agents(2)
    grant = first.borrow("acme", rate, 5)
    renew(first, grant, closed=True, level=10)
    assert second.borrow("acme", rate, 5).level == 10
    world.clock.advance(1_000)


def test_a_lowered_rate_asks_all_down_in_proportion_and_a_raised_one_is_lent(world: Any, rate: Any) -> None:
    agent = world.agent()
    grant = agent.borrow("acme", rate, 5)
    world.customer("acme", world.limit("input_tokens", 300, "minute", smooth=True, burst=30))
    assert renew(agent, grant).recalls[0].keep == 300
    assert renew(agent, grant, 300).recalls == ()
    raised = world.limit("input_tokens", 900, "minute", smooth=True, burst=90)
    world.customer("acme", raised)
    assert agent.borrow("acme", raised, 5).amount == 600
    assert world.books() == []


def test_paused_customers_shares_are_asked_back(world: Any, rate: Any) -> None:
    agent = world.agent()
    grant = agent.borrow("acme", rate, 5)
    world.customer("acme", rate, status="paused")
    assert renew(agent, grant).recalls[0].keep == 0


def test_more_hosts_than_the_burst_holds_calls_wait_their_turn(world: Any) -> None:
    limit = world.limit(amount=100, window="minute", smooth=True, burst=2)
    world.customer("acme", limit)
    holders = world.agents(3)
    first = holders[0].borrow("acme", limit, 1)
    holders[1].ask("acme", limit, 1)
    renew(holders[0], first, 50)
    holders[1].borrow("acme", limit, 1)
    assert holders[2].ask("acme", limit, 1).grants == ()
    assert row_of(world, limit).burst_lent == 2
    assert world.books() == []


def test_a_restart_gives_the_shares_of_the_start_before_back_with_nothing_in_them(world: Any, rate: Any) -> None:
    agent = world.agent()
    agent.borrow("acme", rate, 5)
    restarted = agent.restart()
    assert len(restarted.report().closed) == 1
    assert restarted.borrow("acme", rate, 5).level == 0
