"""A sync that a newer one of the same start has overtaken: its reports count, its asks are granted to nobody."""

from __future__ import annotations

from protocol.events import Subject
from protocol.leases import LeaseReport
from protocol.uplink_messages import Ask, CustomerSync, FirstCall


def test_a_late_copy_of_an_ask_that_was_denied_is_granted_to_nobody(world):
    """Found by the simulation: its answer reaches nobody, and what it grants would lie lent until the window's end."""
    ten = world.limit(amount=10)
    world.customer("acme", ten)
    holder, asker = world.agents(2)
    held = holder.borrow("acme", ten, 10)

    def asking(lease, serial):
        return [grant.lease for grant in asker.ask("acme", ten, 5, lease=lease, serial=serial).grants]

    assert asking("late", 2) == []
    holder.report(LeaseReport(held.lease, held.amount, 0, closed=True))
    assert asking("newer", 3) == ["newer"]
    assert asking("late", 2) == []
    assert asking("newer", 3) == ["newer"], "what is asked for again under the same id is still the same lease"
    assert world.books() == []


def test_what_an_overtaken_sync_reports_counts(world):
    ten = world.limit(amount=10)
    world.customer("acme", ten)
    (agent,) = world.agents(1)
    held = agent.borrow("acme", ten, 10, serial=1)
    agent.ask("acme", ten, 1, serial=3)
    closed = agent.report(LeaseReport(held.lease, held.amount, 4, closed=True), serial=2)
    assert closed.closed == (held.lease,)
    assert world.books() == []


def test_what_was_granted_in_a_lost_answer_comes_back_when_the_agent_stops(world):
    """Found by the simulation: a host that is scaled in never speaks of what it did not hear of."""
    ten = world.limit(amount=10)
    world.customer("acme", ten)
    agent, other = world.agents(2)
    spoken_of = agent.borrow("acme", ten, 4, serial=1)
    agent.report(LeaseReport(spoken_of.lease, spoken_of.amount, 1), serial=2)
    agent.ask("acme", ten, 3, lease="unheard-of", serial=3)
    stopped = agent.sync(stopping=True, serial=4)
    assert stopped.closed == ("unheard-of",)
    assert agent.ask("acme", ten, 3, lease="unheard-of", serial=3).grants == (), "a late copy"
    assert other.borrow("acme", ten, 10 - spoken_of.amount).amount == 10 - spoken_of.amount
    assert world.books() == []


def test_what_was_granted_in_a_lost_answer_comes_back_when_the_plan_no_longer_lends_it(world):
    """Found by the simulation: the ask is repeated, is refused under the new plan, and nobody speaks of it again."""
    ten, other = world.limit(amount=10), world.limit(meter="output_tokens", amount=10)
    world.customer("acme", ten, other)
    agent = world.agent()
    agent.ask("acme", ten, 3, lease="unheard-of", serial=1)
    kept = agent.borrow("acme", other, 2, serial=2)
    world.customer("acme", other)
    again = agent.ask("acme", ten, 3, lease="unheard-of", serial=3)
    assert (again.grants, again.closed) == ((), ("unheard-of",))
    world.customer("acme", ten, other)
    assert agent.ask("acme", ten, 3, lease="unheard-of", serial=1).grants == (), "a late copy"
    assert agent.ask("acme", ten, 10, serial=4).grants, "nothing of it is charged"
    assert not agent.report(LeaseReport(kept.lease, kept.amount, 1), serial=5).closed
    assert world.books() == []


def test_what_a_first_call_was_lent_in_a_lost_answer_comes_back_when_the_plan_lends_it_otherwise(world):
    ten, other = world.limit(amount=10), world.limit(meter="output_tokens", amount=10)
    world.customer("acme", ten, other)
    agent = world.agent()
    call = FirstCall("first", "chat", Subject(), {"output_tokens": 3, "requests": 1})
    lost = agent.sync(CustomerSync("acme", 0, first_calls=(call,)), serial=1)
    assert {grant.lease for grant in lost.grants} == {"first.0", "first.1"}
    world.customer("acme", other)
    again = agent.sync(CustomerSync("acme", 0, first_calls=(call,)), serial=2)
    assert (again.grants, set(again.closed)) == ((), {"first.0", "first.1"})
    world.customer("acme", ten, other)
    assert agent.borrow("acme", ten, 10, serial=3).amount == 10, "nothing of them is charged"
    assert agent.borrow("acme", other, 10, serial=4).amount == 10
    assert world.books() == []


def test_a_lease_that_its_holder_speaks_of_is_never_taken_back_as_unheard(world):
    ten = world.limit(amount=10)
    world.customer("acme", ten)
    agent = world.agent()
    agent.ask("acme", ten, 3, lease="heard-of", serial=1)
    report = LeaseReport("heard-of", 3, 0)
    world.customer("acme")
    both = agent.sync(
        CustomerSync("acme", 1, asks=(Ask("heard-of", ten.counter, "", 3, 1, 0),)), leases=[report], serial=2
    )
    assert both.closed == ()
    assert world.books() == []
