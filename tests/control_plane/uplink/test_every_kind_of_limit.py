"""Slots, scopes, credit pools, reserves for calls in flight, floors and windows ahead, as agents are answered."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.operations.reclaim_leases import CALL_LIFE_MS_MAX, SWEEPS
from control_plane.store import allowances
from protocol.admission import Priority
from protocol.entitlements import InFlight, Rate, Scope
from protocol.events import Subject
from protocol.leases import LeaseReport

DAY_MS = 86_400_000


def row_of(world: Any, limit: Any, whose: str = "") -> allowances.Row:
    rows = world.read(lambda connection: list(allowances.all_rows(connection)))
    return next(row for row in rows if (row.key.counter, row.key.scope_value) == (limit.counter, whose))


def sweep(world: Any) -> None:
    for step in SWEEPS:
        world.database.run(lambda connection, step=step: step(connection, world.clock.now_ms()))


# -- what is held at the same time


@pytest.fixture
def slots(world: Any) -> Any:
    limit = world.limit(amount=12, window="in_flight")
    world.customer("acme", limit)
    return limit


def test_slots_come_back_when_calls_end_and_nothing_is_ever_charged(world: Any, slots: Any) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", slots, 12)
    agent.report(LeaseReport(lease.lease, 12, 0, in_flight=12))
    agent.report(LeaseReport(lease.lease, 5, 0, in_flight=5))
    assert row_of(world, slots).outstanding == 5
    agent.report(LeaseReport(lease.lease, 5, 5, closed=True))  # whatever it says was settled
    assert row_of(world, slots)[2:5] == (0, 0, 0)
    assert world.agent().borrow("acme", slots, 12).amount == 12
    assert world.books() == []


def test_usage_without_a_lease_takes_no_slot(world: Any, slots: Any) -> None:
    world.agent().upload(world.event("acme", {"requests": 7}))
    assert world.agent().borrow("acme", slots, 12).amount == 12


def test_slots_that_a_crash_left_held_are_not_given_back_by_closing(world: Any, slots: Any) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", slots, 12)
    agent.report(LeaseReport(lease.lease, 12, 0, unreported=4, closed=True))
    assert row_of(world, slots).outstanding == 4
    reply = agent.report(LeaseReport(lease.lease, 4, 0, closed=True))
    assert reply.closed == (lease.lease,)
    assert row_of(world, slots)[2:5] == (0, 0, 0)


def test_slots_of_a_lost_holder_are_free_once_no_call_of_then_can_live(world: Any, slots: Any) -> None:
    agent = world.agent()
    lease = agent.borrow("acme", slots, 12)
    world.clock.advance(CALL_LIFE_MS_MAX)
    sweep(world)
    denial = world.agent().ask("acme", slots, 1).denials[0]
    assert not denial.exhausted
    world.clock.advance(61_000)
    sweep(world)
    other = world.agent().borrow("acme", slots, 12)
    reply = agent.report(LeaseReport(lease.lease, 12, 0, in_flight=3, unreported=2))  # it lives after all
    assert reply.closed == (lease.lease,)
    assert row_of(world, slots)[2:5] == (0, 0, other.amount)
    assert world.books() == []


def test_slots_that_others_hold_are_asked_back_even_while_calls_hold_them(world: Any, slots: Any) -> None:
    first, second = world.agents(2)
    lease = first.borrow("acme", slots, 12)
    first.report(LeaseReport(lease.lease, 12, 0, in_flight=12))
    denial = second.ask("acme", slots, 1).denials[0]
    assert not denial.exhausted
    assert denial.standing.elsewhere == 12
    reply = first.report(LeaseReport(lease.lease, 12, 0, in_flight=11))
    assert reply.recalls[0].keep == 0


# -- whose counter it is


@pytest.mark.parametrize(
    ("scope", "more", "who", "dimension"),
    [
        (Scope.WORKSPACE, {}, {"workspace": "blue"}, "blue"),
        (Scope.ROLE, {}, {"role": "blue"}, "blue"),
        (Scope.API_KEY, {}, {"api_key": "blue"}, "blue"),
        (Scope.TAG, {"scope_tag": "team"}, {"tags": {"team": "blue"}}, "blue"),
        (Scope.TAG, {"scope_tag": "team"}, {"tags": {"project": "blue"}}, ""),
        (Scope.ROLE, {}, {}, ""),
    ],
)
def test_each_scope_has_counters_of_its_own_that_start_from_what_was_used(
    world: Any, scope: Scope, more: Any, who: Any, dimension: str
) -> None:
    limit = world.limit(amount=100, scope=scope, **more)
    world.customer("acme")
    who = dict(who)
    tags = who.pop("tags", {})
    for subject, said in ((Subject(**who), tags), (Subject(**dict.fromkeys(who, "red")), {"team": "red"})):
        event = world.event("acme", {"requests": 10}, subject=subject, tags=said)
        world.agent().upload(event)
    world.clock.advance(3_600_000)
    world.customer("acme", limit)
    reply = world.agent().first_call("acme", {"requests": 1}, tags=tags, **who)
    assert [grant.scope_value for grant in reply.grants] == [dimension]
    expected = 20 if not who and scope is Scope.ROLE else 10
    assert row_of(world, limit, dimension).direct == expected
    assert world.books() == []


def test_children_may_oversubscribe_their_parent_and_never_pass_it(world: Any) -> None:
    parent, child = world.limit(amount=100), world.limit(amount=80, scope=Scope.USER, key="user")
    world.customer("acme", parent, child)
    ann, bob = world.agents(2)
    assert len(ann.first_call("acme", {"requests": 70}, user="ann").grants) == 2
    reply = bob.first_call("acme", {"requests": 70}, user="bob")
    assert (reply.grants, [denial.counter for denial in reply.denials]) == ((), [parent.counter])
    assert row_of(world, child, "bob")[2:5] == (0, 0, 0)
    assert len(bob.first_call("acme", {"requests": 20}, user="bob").grants) == 2
    assert row_of(world, parent).outstanding <= 100


# -- the vector of one call


def test_a_first_call_takes_of_every_limit_or_of_none_and_hears_which_decided(world: Any) -> None:
    limits = (
        world.limit(amount=1_000),
        world.limit("input_tokens", 50, "hour"),
        world.limit("output_tokens", 10, "month"),
    )
    world.customer("acme", *limits)
    reply = world.agent().first_call("acme", {"requests": 1, "input_tokens": 40, "output_tokens": 11})
    assert reply.grants == ()
    assert [denial.counter for denial in reply.denials] == [limits[2].counter]
    assert [row_of(world, limit).outstanding for limit in limits] == [0, 0, 0]
    reply = world.agent().first_call("acme", {"requests": 1, "input_tokens": 40, "output_tokens": 10})
    assert len(reply.grants) == 3
    assert world.books() == []


# -- pools that several features draw from


def test_a_call_draws_what_rates_make_of_it_from_the_pool(world: Any) -> None:
    pool = world.limit("credits", 100, "month")
    rates = (Rate("credits", {"requests": 2_500_000}), Rate("credits", {"requests": 40_000_000}, "search"))
    world.customer("acme", pool, rates=rates)
    agent = world.agent()
    assert agent.first_call("acme", {"requests": 2}).grants[0].amount >= 5
    reply = agent.first_call("acme", {"requests": 3}, feature="search")
    assert [denial.counter for denial in reply.denials] == [pool.counter]
    assert reply.entitlements[0].rates == rates
    agent.upload(world.event("acme", {"requests": 1, "credits": 3}, derived=("credits",)))
    assert row_of(world, pool).direct == 3
    assert world.books() == []


def test_a_repetition_under_other_rates_is_the_same_event(world: Any) -> None:
    world.customer("acme", world.limit("credits", 100, "month"))
    said = {"event": "call-1", "derived": ("credits",)}
    world.agent().upload(world.event("acme", {"requests": 1, "credits": 3}, **said))
    reply = world.agent().upload(world.event("acme", {"requests": 1, "credits": 9}, **said))
    assert [problem.code for problem in reply.event_problems] == ["duplicate"]


# -- calls in flight that may finish


def test_the_reserve_beyond_a_limit_is_lent_to_calls_in_flight_alone(world: Any) -> None:
    limit = world.limit(amount=100, in_flight=InFlight.FINISH, overage_max=30)
    world.customer("acme", limit)
    agent, other = world.agents(2)
    agent.borrow("acme", limit, 100)
    denial = other.ask("acme", limit, 1).denials[0]
    grant = other.borrow("acme", limit, 20, finishing=True, demand_per_min=1_000)
    assert (denial.exhausted, grant.finishing, grant.amount, grant.overage) == (False, True, 20, 20)
    assert other.ask("acme", limit, 11, finishing=True).grants == ()
    assert other.borrow("acme", limit, 10, finishing=True).amount == 10
    assert row_of(world, limit).outstanding == 130
    assert world.books() == []


def test_finishing_is_heard_only_where_the_plan_lets_calls_finish(world: Any) -> None:
    limit = world.limit(amount=100)
    world.customer("acme", limit)
    assert not world.agent().borrow("acme", limit, 60, finishing=True).finishing
    assert world.agent().ask("acme", limit, 60, finishing=True).grants == ()


# -- what batch calls leave


def test_asks_for_batch_calls_leave_the_floor(world: Any) -> None:
    limit = world.limit(amount=100, batch_floor=40)
    world.customer("acme", limit)
    agent = world.agent()
    assert agent.ask("acme", limit, 61, priority=Priority.BATCH).denials[0].exhausted
    assert agent.borrow("acme", limit, 60, priority=Priority.BATCH, demand_per_min=10_000).amount == 60
    assert agent.first_call("acme", {"requests": 1}, priority=Priority.BATCH).grants == ()
    assert agent.borrow("acme", limit, 40).amount == 40


# -- windows ahead


def test_the_window_after_this_one_is_lent_before_it_begins(world: Any) -> None:
    limit = world.limit(amount=100)
    world.customer("acme", limit)
    agent = world.agent()
    agent.borrow("acme", limit, 100)
    window = limit.window_at(world.clock.now_ms())
    ahead = agent.borrow("acme", limit, 10, ahead=True)
    assert (ahead.window_start_ms, ahead.window_end_ms) == (window.end_ms, window.end_ms + DAY_MS)
    assert ahead.starts_in_ms == window.end_ms - world.clock.now_ms()
    assert ahead.window_left_ms == ahead.starts_in_ms + DAY_MS
    world.clock.set(window.end_ms)
    reply = agent.report(LeaseReport(ahead.lease, ahead.amount, 0))
    assert [renewal.lease for renewal in reply.renewed] == [ahead.lease]
    assert agent.ask("acme", limit, 101 - ahead.amount).grants == ()
    assert agent.borrow("acme", limit, 100 - ahead.amount).starts_in_ms == 0
    assert world.books() == []


def test_there_is_nothing_ahead_of_a_window_that_never_ends(world: Any) -> None:
    limit = world.limit(amount=100, window="lifetime")
    world.customer("acme", limit)
    denial = world.agent().ask("acme", limit, 10, ahead=True).denials[0]
    assert not denial.exhausted
