"""Leases are lent within limits, once, and come back."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.entitlements import LimitEnd, Scope
from protocol.leases import LeaseReport
from protocol.uplink_messages import CustomerSync


def test_a_first_call_gets_its_entitlement_and_a_lease_of_every_counted_limit(world: Any) -> None:
    day, month = world.limit(), world.limit(key="tokens", meter="input_tokens", amount=100_000, window="month")
    bound = world.limit(key="bound", meter="input_tokens", amount=8_000, window="request")
    world.customer("acme", day, bound, month)
    reply = world.agent().first_call("acme", {"requests": 1, "input_tokens": 700})
    assert [entitlement.customer for entitlement in reply.entitlements] == ["acme"]
    assert [grant.counter for grant in reply.grants] == [day.counter, month.counter]
    assert [grant.lease[-2:] for grant in reply.grants] == [".0", ".2"]
    assert reply.grants[0].amount == 9  # what it needs, and eight calls more
    assert world.books() == []


def test_asking_twice_under_one_id_lends_once(world: Any) -> None:
    day = world.limit()
    world.customer("acme", day)
    agent = world.agent()
    first = agent.borrow("acme", day, 5, lease="one")
    again = agent.borrow("acme", day, 5, lease="one")
    assert first == again
    assert world.books() == []


def test_an_id_that_another_agent_took_is_refused(world: Any) -> None:
    day = world.limit()
    world.customer("acme", day)
    world.agent().borrow("acme", day, 5, lease="one")
    reply = world.agent().ask("acme", day, 5, lease="one")
    assert not reply.grants
    assert reply.unknown_leases == ("one",)
    assert not reply.denials[0].exhausted


def test_more_than_is_left_is_denied_and_says_that_nothing_is_left(world: Any) -> None:
    day = world.limit(amount=10)
    world.customer("acme", day)
    agent = world.agent()
    lease = agent.borrow("acme", day, 8)
    agent.report(LeaseReport(lease.lease, lease.amount, settled=8))
    denial = agent.ask("acme", day, 3).denials[0]
    assert denial.exhausted
    assert denial.retry_in_ms == 5_000
    assert denial.standing.amount == 10


def test_free_rests_elsewhere_are_asked_back_and_their_return_is_lent(world: Any) -> None:
    day = world.limit(amount=100)
    world.customer("acme", day)
    rich, poor = world.agent(), world.agent()
    lease = rich.borrow("acme", day, 90)
    denial = poor.ask("acme", day, 30).denials[0]
    assert not denial.exhausted
    recall = rich.report(LeaseReport(lease.lease, lease.amount, settled=10)).recalls[0]
    assert recall.lease == lease.lease
    rich.report(LeaseReport(lease.lease, 10 + recall.keep, settled=10))
    assert poor.borrow("acme", day, 30).amount >= 30
    assert world.books() == []


def test_overage_is_lent_and_named(world: Any) -> None:
    day = world.limit(amount=10, at_end=LimitEnd.OVERAGE, overage_max=5)
    world.customer("acme", day)
    agent = world.agent()
    assert agent.borrow("acme", day, 8).overage == 0
    assert agent.borrow("acme", day, 6).overage == 4
    assert agent.ask("acme", day, 2).denials[0].exhausted is False


def test_users_have_counters_of_their_own(world: Any) -> None:
    day = world.limit(amount=10, scope=Scope.USER)
    world.customer("acme", day)
    agent = world.agent()
    agent.borrow("acme", day, 10, user="ann")
    assert agent.borrow("acme", day, 10, user="bob").scope_value == "bob"
    assert agent.ask("acme", day, 1, user="ann").denials


@pytest.mark.parametrize("status", ["paused"])
def test_nothing_is_lent_to_a_paused_customer(world: Any, status: str) -> None:
    day = world.limit()
    world.customer("acme", day, status=status)
    reply = world.agent().first_call("acme", {"requests": 1})
    assert reply.entitlements[0].status == status
    assert not reply.grants


def test_a_customer_nobody_knows_is_named(world: Any) -> None:
    reply = world.agent().sync(CustomerSync("nobody"))
    assert reply.unknown_customers == ("nobody",)


def test_a_limit_that_is_new_in_a_plan_counts_what_was_used_before(world: Any) -> None:
    world.customer("acme", world.limit(key="images", amount=None))
    agent = world.agent()
    agent.upload(world.event("acme", {"requests": 1, "input_tokens": 400}))
    month = world.limit(key="month", meter="input_tokens", amount=1_000, window="month")
    world.customer("acme", month)
    grant = agent.borrow("acme", month, 100)
    assert grant.standing.elsewhere == 400
    assert agent.ask("acme", month, 600).denials
    assert world.books() == []
