"""A metered call ends its reservation once, whichever way its block is left (blocking)."""

from __future__ import annotations

import asyncio
import logging

import pytest

import allotment

AMOUNTS = {"input_tokens": 900, "output_tokens": 512, "requests": 1}


def the_event(agent):
    (event,) = agent.ledger.events.values()
    return event


def assert_ended_once(agent):
    assert agent.ledger.held == {}
    assert agent.ledger.duplicates == 0
    assert len(agent.ledger.events) + len(agent.ledger.released) == 1


def test_what_was_reported_is_settled_as_complete(client, agent):
    with client.metered("acme", "chat", user="u7", amounts=AMOUNTS, model="m1") as call:
        assert call.allowed
        assert call.decision.reservation.amounts == AMOUNTS
        call.report(tokens={"input": 800}, usage_source="estimated")
        call.report(tokens={"input": 850, "output": 60}, model="m1-2026", provider="p")
    assert call.recorded.amounts == {"requests": 1, "input_tokens": 850, "output_tokens": 60}
    event = the_event(agent)
    assert (event.outcome, event.usage_source, event.model) == ("complete", "provider", "m1-2026")
    assert event.call.subject.user == "u7"
    assert_ended_once(agent)


def test_amounts_may_be_reported_instead_of_tokens(client, agent):
    with client.metered("acme", "draw", amounts={"images": 3}) as call:
        call.report(amounts={"images": 2}, outcome="error")
    assert call.recorded.amounts == {"requests": 1, "images": 2}
    assert the_event(agent).outcome == "error"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("broken"), "error"),
        (KeyboardInterrupt(), "aborted"),
        (asyncio.CancelledError(), "aborted"),
        (SystemExit(1), "aborted"),
    ],
)
def test_an_exception_before_any_report_settles_the_input_that_was_reserved(client, agent, error, outcome):
    with pytest.raises(type(error)), client.metered("acme", "chat", amounts=AMOUNTS):
        raise error
    event = the_event(agent)
    assert (event.outcome, event.usage_source) == (outcome, "estimated")
    assert event.amounts == {"input_tokens": 900, "requests": 1}
    assert_ended_once(agent)


@pytest.mark.parametrize(("error", "outcome"), [(ValueError("broken"), "error"), (GeneratorExit(), "aborted")])
def test_an_exception_after_a_report_settles_what_was_reported(client, agent, error, outcome):
    with pytest.raises(type(error)), client.metered("acme", "chat", amounts=AMOUNTS) as call:  # noqa: PT012
        call.report(tokens={"input": 900, "output": 17}, usage_source="estimated")
        raise error
    event = the_event(agent)
    assert (event.outcome, event.tokens) == (outcome, {"input": 900, "output": 17})
    assert_ended_once(agent)


def test_a_block_left_without_a_word_settles_all_that_was_held(client, agent):
    with client.metered("acme", "chat", amounts=AMOUNTS) as call:
        call.extend(output_tokens=1024)
    event = the_event(agent)
    assert (event.outcome, event.usage_source) == ("complete", "estimated")
    assert event.amounts == AMOUNTS | {"output_tokens": 1536}
    assert_ended_once(agent)


def test_a_call_that_was_never_sent_is_released(client, agent):
    with client.metered("acme", "chat", amounts=AMOUNTS) as call:
        call.not_sent()
    assert agent.ledger.events == {}
    assert_ended_once(agent)


def test_a_call_that_was_never_sent_is_released_even_by_an_exception(client, agent):
    with pytest.raises(ConnectionError), client.metered("acme", "chat", amounts=AMOUNTS) as call:  # noqa: PT012
        call.not_sent()
        raise ConnectionError("no route to the provider")
    assert_ended_once(agent)


def test_a_stream_that_is_abandoned_ends_its_reservation(client, agent):
    def stream():
        with client.metered("acme", "chat", amounts=AMOUNTS) as call:
            for piece in range(10):
                call.report(tokens={"input": 900, "output": piece + 1}, usage_source="estimated")
                yield piece

    pieces = stream()
    assert [next(pieces), next(pieces)] == [0, 1]
    pieces.close()
    event = the_event(agent)
    assert (event.outcome, event.tokens) == ("aborted", {"input": 900, "output": 2})
    assert_ended_once(agent)


def test_extending_says_the_total_so_that_repeats_are_harmless(client, agent):
    with client.metered("acme", "chat", amounts=AMOUNTS) as call:
        agent.script.append("deaf")
        assert call.extend(output_tokens=512).allowed
        assert call.held["output_tokens"] == 1024
        assert call.extend(output_tokens=1, images=2).allowed
        assert agent.seen[-1].amounts == AMOUNTS | {"output_tokens": 1025, "images": 2}
        call.not_sent()


@pytest.mark.parametrize("customer", ["broke", "busy"])
def test_a_refused_call_holds_nothing_and_ends_nothing(client, agent, customer):
    with client.metered(customer, "chat", amounts=AMOUNTS) as call:
        assert not call.allowed
        assert call.decision.code in {"usage_limit_reached", "rate_limited"}
    assert agent.ops == ["reserve"]
    assert call.recorded is None


@pytest.mark.parametrize(("customer", "error"), [("broke", allotment.Blocked), ("busy", allotment.Throttled)])
def test_a_refusal_raises_before_the_block_where_asked_to(client, agent, customer, error):
    with pytest.raises(error), client.metered(customer, "chat", raise_on_refusal=True):
        pytest.fail("a refused call must not run")
    assert agent.ops == ["reserve"]


def test_a_report_that_cannot_be_is_told_and_the_reservation_ends_all_the_same(client, agent):
    with (
        pytest.raises(allotment.RequestInvalid, match=r"tokens\.thoughts"),
        client.metered("acme", "chat", amounts=AMOUNTS) as call,
    ):
        call.report(tokens={"thoughts": 5})
    assert the_event(agent).amounts == AMOUNTS
    assert_ended_once(agent)


def test_a_settle_that_got_no_answer_is_repeated(client, agent):
    with client.metered("acme", "chat", amounts=AMOUNTS) as call:
        agent.script.extend(["drop", "retry"])
        call.report(tokens={"input": 1})
    assert_ended_once(agent)


def test_an_agent_that_lost_its_memory_accounts_for_the_call_all_the_same(client, agent):
    with client.metered("acme", "chat", amounts=AMOUNTS) as call:
        call.report(tokens={"input": 5})
        agent.restart()
        agent.ledger.held.clear()
    assert the_event(agent).call.customer == "acme"


def test_an_agent_that_is_gone_raises_where_nothing_else_does(agent):
    with (
        allotment.Client(str(agent.path), timeout_s=0.25) as client,
        pytest.raises(allotment.AgentUnavailable),
        client.metered("acme", "chat", amounts=AMOUNTS),
    ):
        agent.stop()


def test_an_agent_that_is_gone_hides_no_exception_and_is_told_beside_it(agent, caplog):
    with allotment.Client(str(agent.path), timeout_s=0.25) as client:
        caplog.set_level(logging.WARNING, "allotment")
        with (  # noqa: PT012
            pytest.raises(ValueError, match="mine") as raised,
            client.metered("acme", "chat", amounts=AMOUNTS, timeout_s=0.25) as call,
        ):
            agent.stop()
            raise ValueError("mine")
    assert call.reservation in raised.value.__notes__[0]
    assert call.reservation in caplog.text


def test_an_ending_that_got_no_answer_can_be_said_again_later(agent):
    with allotment.Client(str(agent.path), timeout_s=0.25) as client:
        call = client.metered("acme", "chat", amounts=AMOUNTS)
        with pytest.raises(allotment.AgentUnavailable), call:  # noqa: PT012
            call.report(tokens={"input": 7})
            agent.stop()
        with pytest.raises(allotment.AgentUnavailable):
            call.end_again()
        agent.start()
        assert call.end_again().amounts["input_tokens"] == 7
        assert call.end_again().event == call.reservation
    assert agent.ops == ["reserve", "settle"]
    assert_ended_once(agent)


class Interrupting(allotment.Client):
    """A client whose user presses Ctrl-C at the moment when the answer of one kind of request is under way."""

    interrupt_after: type | None = None

    def _attempt(self, request, kind, deadline):
        answer = super()._attempt(request, kind, deadline)
        if self.interrupt_after is kind:
            self.interrupt_after = None
            raise KeyboardInterrupt
        return answer


def test_an_interrupt_while_the_reserve_is_under_way_gives_it_back(agent):
    with Interrupting(str(agent.path)) as client:
        client.interrupt_after = allotment.Decision
        with pytest.raises(KeyboardInterrupt), client.metered("acme", "chat", amounts=AMOUNTS):
            pytest.fail("it must not run")
    assert_ended_once(agent)


def test_an_interrupt_while_the_settle_is_under_way_does_not_stop_it(agent):
    with Interrupting(str(agent.path)) as client:
        client.interrupt_after = allotment.Recorded
        with pytest.raises(KeyboardInterrupt), client.metered("acme", "chat", amounts=AMOUNTS) as call:
            call.report(tokens={"input": 1})
    assert agent.ledger.held == {}
    assert len(agent.ledger.events) == 1


def test_nothing_is_decided_before_the_block(client):
    with pytest.raises(RuntimeError, match="before the block"):
        client.metered("acme", "chat").allowed  # noqa: B018 - reading it is what raises
