"""Refusals that the client turns into HTTP answers are those that the agent's own HTTP door gives."""

from __future__ import annotations

import msgspec
import pytest

from agent.core.problem_details import details
from allotment import AgentUnavailable, Blocked, RequestInvalid, Throttled
from allotment.answers import Decision as Read
from allotment.answers import read_answer
from allotment.problems import problem_of, ratelimit
from protocol.decisions import Code, Decision, LimitState, Verdict

LIMIT = LimitState("tokens-a-day", "input_tokens", "day", False, amount=9, usage=9, remaining=0, resets_in_ms=1_500)


def refusal(code: Code) -> Decision:
    verdict = Verdict.THROTTLE if code is Code.RATE_LIMITED else Verdict.BLOCK
    return Decision(
        decision=verdict, has_access=False, code=code, message=f"No: {code}.", feature="chat", limiting="tokens-a-day",
        amount=9, usage=9, remaining=0, resets_at="2026-01-01T00:00:00Z", resets_in_ms=1_500, plan="pro@3",
        retry_after_ms=250 if code in (Code.RATE_LIMITED, Code.LEASE_UNAVAILABLE) else None, breakdown=(LIMIT,),
    )  # fmt: skip


def as_read(decision: Decision) -> Read:
    answer = read_answer(msgspec.json.decode(msgspec.json.encode(decision)))
    assert isinstance(answer, Read)
    return answer


@pytest.mark.parametrize("code", [code for code in Code if code not in (Code.OK, Code.SOFT_LIMIT_EXCEEDED)])
def test_a_refusal_is_what_the_agents_own_door_says(code: Code) -> None:
    there = details(refusal(code))
    here = problem_of((Throttled if code is Code.RATE_LIMITED else Blocked)(as_read(refusal(code))))
    assert here.status == there.status
    assert here.headers == {name.decode(): value.decode() for name, value in there.headers}
    assert msgspec.json.encode(here.body, order="sorted") == msgspec.json.encode(there.body, order="sorted")


def test_without_an_agent_nobody_can_tell_and_no_path_of_this_host_is_told() -> None:
    said = problem_of(AgentUnavailable("no agent at /run/allotment/agent.sock within 5 s"))
    assert (said.status, said.headers["retry-after"], said.body["code"]) == (503, "1", "agent_unavailable")
    assert "/run" not in str(said)


def test_a_request_that_breaks_a_rule_names_the_field() -> None:
    said = problem_of(RequestInvalid("call.customer: is not a key", "invalid_request", "call.customer"))
    assert (said.status, said.body["field"], said.body["error"]["param"]) == (400, "call.customer", "call.customer")


def test_unlimited_calls_have_no_ratelimit_field() -> None:
    assert ratelimit(Read("allow", True, "ok", "Allowed.", "chat")) == {}
