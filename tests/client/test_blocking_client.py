"""The blocking client: typed answers, errors that name what is wrong, deadlines, repetition, threads and forks."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import allotment
from allotment import requests
from allotment.attempts import time_allowed_s


def test_every_operation_has_a_typed_answer(client, agent):
    decision = client.check("acme", "chat", user="u7", amounts={"input_tokens": 3}, model="m/1", tags={"team": "a"})
    assert decision
    assert decision.breakdown[0].remaining == 4
    held = client.reserve("acme", "chat", amounts={"input_tokens": 3}, reservation="r1", ttl_ms=9_000)
    assert held.reservation == allotment.Reservation("r1", 9_000, {"input_tokens": 3})
    assert client.extend("r1", {"input_tokens": 5}).reservation.amounts == {"input_tokens": 5}
    settled = client.settle("r1", tokens={"input": 2, "cache_read": 1, "output": 4}, provider="p")
    assert settled.amounts == {"requests": 1, "input_tokens": 3, "output_tokens": 4}
    client.reserve("acme", "chat", reservation="r2")
    assert client.release("r2").event is None
    assert client.record("acme", "chat", event="e1", amounts={"images": 1}, at_ms=5).event == "e1"
    usage = client.usage("acme", feature="chat", user="u7")
    assert usage.features == {"chat": True, "seats": 5}
    assert usage.limits[0].limit == "tokens"
    assert client.status().state == "ready"
    assert agent.ops == ["check", "reserve", "extend", "settle", "reserve", "release", "record", "usage", "status"]
    assert agent.accepted == 1


@pytest.mark.parametrize(("customer", "error"), [("broke", allotment.Blocked), ("busy", allotment.Throttled)])
def test_a_refusal_is_a_value_and_raises_only_when_asked_to(client, customer, error):
    decision = client.check(customer, "chat")
    assert not decision
    assert decision.blocked != decision.throttled
    with pytest.raises(error) as raised:
        decision.raise_for_refusal()
    assert raised.value.decision is decision
    assert isinstance(raised.value, allotment.Refused)


@pytest.mark.parametrize(
    ("amounts", "field"),
    [
        ({"input_tokens": True}, "amounts.input_tokens"),
        ({"input_tokens": -1}, "amounts.input_tokens"),
        ({"input_tokens": 1.5}, "amounts.input_tokens"),
        ({"input_tokens": 2**53}, "amounts.input_tokens"),
        ({"input_tokens": "3"}, "amounts.input_tokens"),
        (7, "amounts"),
        ({"input_tokens": 2**70}, "amounts.input_tokens"),
        ({"input_tokens": object()}, "amounts.input_tokens"),
        ({"\ud800": 1}, "amounts.\ud800"),
    ],
)
def test_wrong_input_is_refused_by_name_and_the_connection_lives_on(client, agent, amounts, field):
    with pytest.raises(allotment.RequestInvalid) as raised:
        client.check("acme", "chat", amounts=amounts)
    assert raised.value.field == field
    assert raised.value.code == "invalid_request"
    assert client.check("acme", "chat").allowed
    assert agent.accepted == 1


def test_a_request_beyond_the_bound_of_frames_is_refused_before_it_is_sent(client, agent):
    with pytest.raises(allotment.RequestInvalid, match="at most 262144"):
        client.check("a" * 300_000, "chat")
    assert agent.seen == []


def test_a_misspelt_argument_is_a_type_error(client):
    with pytest.raises(TypeError, match="amount"):
        client.check("acme", "chat", amount={"input_tokens": 1})


def test_errors_of_the_agent_have_their_own_classes(client):
    with pytest.raises(allotment.ReservationNotFound):
        client.settle("nobody")
    client.reserve("acme", "chat", reservation="r1")
    client.settle("r1")
    with pytest.raises(allotment.ReservationEnded):
        client.reserve("acme", "chat", reservation="r1")


@pytest.mark.parametrize("fault", ["drop", "deaf", "cut", "garbage", "huge", "retry"])
def test_what_got_no_answer_is_repeated_under_the_same_id_and_counts_once(client, agent, fault):
    agent.script.extend([fault] * 3)
    recorded = client.record("acme", "chat", amounts={"images": 2})
    assert len({request.event for request in agent.seen}) == 1
    assert len(agent.seen) == 4
    assert list(agent.ledger.events) == [recorded.event]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.sampled_from(["drop", "deaf", "cut", "garbage", "retry", "drip", "newer", "huge"]), max_size=5))
def test_whatever_happens_on_the_way_a_call_is_counted_once(client, agent, faults):
    agent.ledger.__init__()
    agent.script.extend(faults)
    with client.metered("acme", "chat", amounts={"input_tokens": 9}) as call:
        call.report(tokens={"input": 8})
    assert list(agent.ledger.events) == [call.reservation]
    assert agent.ledger.held == {}
    agent.script.clear()


def test_an_answer_byte_by_byte_is_an_answer(client, agent):
    agent.script.append("drip")
    assert client.check("acme", "chat").allowed


def test_fields_of_a_newer_agent_are_passed_over(client, agent):
    agent.script.append("newer")
    assert client.check("acme", "chat").allowed


def test_a_refusal_without_an_id_belongs_to_the_one_request_under_way(client, agent):
    agent.script.append("zero")
    with pytest.raises(allotment.RequestInvalid, match="unreadable"):
        client.check("acme", "chat")


def test_a_restarted_agent_is_found_again_by_every_thread_at_once(client, agent):
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda n: client.check("acme", f"f{n}").allowed, range(40)))
        agent.restart()
        began = time.monotonic()
        assert all(threads.map(lambda n: client.check("acme", f"f{n}").feature == f"f{n}", range(40)))
    assert time.monotonic() - began < 4


def test_an_agent_that_is_away_for_a_moment_is_waited_for(client, agent):
    agent.stop()
    back = threading.Timer(0.1, agent.start)
    back.start()
    assert client.check("acme", "chat").allowed
    back.join()


@pytest.mark.parametrize("fault", ["silent", "retry"])
def test_every_call_ends_by_its_deadline(client, agent, fault):
    agent.script.extend([fault] * 1000)
    began = time.monotonic()
    with pytest.raises(allotment.AgentUnavailable) as raised:
        client.record("acme", "chat", event="e1", timeout_s=0.2)
    assert 0.1 < time.monotonic() - began < 2
    assert raised.value.code == {"silent": "no_answer", "retry": "not_recorded"}[fault]


def test_no_agent_at_all_is_said_by_the_deadline():
    client = allotment.Client("/nowhere/agent.sock", timeout_s=0.2)
    with pytest.raises(allotment.AgentUnavailable, match=r"/nowhere/agent\.sock") as raised:
        client.check("acme", "chat")
    assert raised.value.code == "unreachable"


def test_a_path_that_no_socket_can_have_is_said_at_once():
    client = allotment.Client("/tmp/" + "x" * 200, timeout_s=60)
    began = time.monotonic()
    with pytest.raises(allotment.AgentUnavailable, match="too long"):
        client.check("acme", "chat")
    assert time.monotonic() - began < 1


def test_the_socket_comes_from_the_environment(agent, monkeypatch):
    monkeypatch.setenv("ALLOTMENT_SOCKET", str(agent.path))
    with allotment.Client() as client:
        assert client.check("acme", "chat").allowed
    monkeypatch.delenv("ALLOTMENT_SOCKET")
    assert allotment.Client().socket_path == "/run/allotment/agent.sock"


@pytest.mark.parametrize(
    ("timeout_s", "given_ms", "allowed_s", "sent_ms"),
    [
        (None, None, 5.0, None),
        (None, 1_000, 5.0, 1_000),
        (None, 30_000, 31.0, 30_000),
        (1.0, None, 1.0, 800),
        (1.0, 900, 1.0, 900),
        (0.001, None, 0.001, 0),
    ],
)
def test_the_agents_wait_fits_into_the_callers_deadline(timeout_s, given_ms, allowed_s, sent_ms):
    request = requests.check("acme", "chat", deadline_ms=given_ms)
    assert time_allowed_s(request, timeout_s, usual_s=5.0) == allowed_s
    assert request.fields.get("deadline_ms") == sent_ms


def test_the_agents_wait_is_sent(client, agent):
    client.check("acme", "chat", timeout_s=1.0)
    client.check("acme", "chat")
    assert [request.deadline_ms for request in agent.seen] == [800, 2_000]


def test_a_late_answer_is_never_taken_for_that_of_another_call(client, agent):
    agent.script.append("hold")
    with pytest.raises(allotment.AgentUnavailable):
        client.check("acme", "first", timeout_s=0.05)
    agent.let_go()
    assert client.check("acme", "second").feature == "second"


def test_threads_never_get_each_others_answers(client):
    with ThreadPoolExecutor(8) as threads:
        asked = [f"f{n}" for n in range(400)]
        assert [d.feature for d in threads.map(lambda f: client.check("acme", f), asked)] == asked


def _check_in_child(client: allotment.Client, answers: multiprocessing.SimpleQueue) -> None:
    answers.put([client.check("acme", f"child{n}").feature for n in range(50)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_makes_connections_of_its_own(client, agent):
    client.check("acme", "before")
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_check_in_child, args=(client, answers))
    child.start()
    mine = [client.check("acme", f"parent{n}").feature for n in range(50)]
    child.join(20)
    assert mine == [f"parent{n}" for n in range(50)]
    assert answers.get() == [f"child{n}" for n in range(50)]
    assert agent.accepted == 2


def test_a_closed_client_keeps_no_connection_and_still_answers(agent):
    client = allotment.Client(str(agent.path))
    client.check("acme", "chat")
    client.close()
    assert client.check("acme", "chat").allowed
    assert not client._pool._idle


def test_a_socket_file_left_by_a_dead_agent_is_not_an_agent(agent):
    agent.stop()
    assert Path(agent.path).exists()
    with allotment.Client(str(agent.path), timeout_s=0.05) as client, pytest.raises(allotment.AgentUnavailable):
        client.status()
