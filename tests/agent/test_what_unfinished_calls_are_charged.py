"""A plan says what is charged of calls whose provider never said what they used; what it did say always counts."""

from __future__ import annotations

import msgspec
import pytest

from agent.operations.expire import expire
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.decisions import Verdict
from protocol.entitlements import Limit
from protocol.events import Outcome, UnfinishedCalls, UsageSource
from protocol.local_messages import RESERVATION_TTL_MS, Call, Reserve, Settle
from protocol.windows import WindowKind

CALL = Call("acme", "chat")
LIMITS = (
    Limit("input", "input_tokens", 10_000, WindowKind.DAY),
    Limit("output", "output_tokens", 10_000, WindowKind.DAY),
)
HELD = {"input_tokens": 40, "output_tokens": 500}
TOKENS = {"input": 30, "cache_read": 5, "output": 80}


@pytest.fixture(params=list(UnfinishedCalls))
def policy(request, bench) -> UnfinishedCalls:
    """What the plan says, and one call in flight."""
    entitlement = bench.entitle(*LIMITS)
    bench.lender.entitlements["acme"] = msgspec.structs.replace(entitlement, unfinished_calls=request.param)
    asked = Reserve(reservation="r1", call=CALL, amounts=HELD)
    for _ in range(4):
        reply = reserve(bench.books, asked, bench.now_ms, bench.now_ms + 1_000)
        if reply is not None:
            break
        bench.sync()
        bench.commit()
    assert reply.decision is Verdict.ALLOW
    return request.param


def ended(bench, source: UsageSource, outcome: Outcome):
    said = Settle(reservation="r1", tokens=TOKENS, usage_source=source, outcome=outcome)
    reply = settle(bench.books, said, bench.now_ms, bench.wall_ms)
    bench.commit()
    return reply


def test_an_aborted_call_whose_provider_said_nothing_is_charged_as_the_plan_says(bench, policy) -> None:
    reply = ended(bench, UsageSource.ESTIMATED, Outcome.ABORTED).reply
    assert (
        reply.amounts
        == {
            UnfinishedCalls.ESTIMATED: {"requests": 1, "input_tokens": 35, "output_tokens": 80},
            UnfinishedCalls.PROMPT: {"requests": 1, "input_tokens": 35},
            UnfinishedCalls.NOTHING: {"requests": 1},
        }[policy]
    )
    said = bench.books.ended.get("r1").said
    assert said.usage_source is (UsageSource.NONE if policy is UnfinishedCalls.NOTHING else UsageSource.ESTIMATED)
    assert "output" not in said.tokens or policy is UnfinishedCalls.ESTIMATED
    again = ended(bench, UsageSource.ESTIMATED, Outcome.ABORTED)
    assert again.duplicate, "said again, it changes nothing"


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        (UsageSource.PROVIDER, Outcome.ABORTED),
        (UsageSource.PROVIDER, Outcome.ERROR),
        (UsageSource.ESTIMATED, Outcome.COMPLETE),
    ],
)
def test_what_the_provider_said_counts_and_so_does_what_came_to_its_end(bench, policy, source, outcome) -> None:
    reply = ended(bench, source, outcome).reply
    assert reply.amounts == {"requests": 1, "input_tokens": 35, "output_tokens": 80}


def test_a_call_of_a_killed_caller_is_charged_as_the_plan_says(bench, policy) -> None:
    bench.now_ms += RESERVATION_TTL_MS + 1
    assert expire(bench.books, bench.now_ms, bench.wall_ms) == 1
    assert (
        bench.books.ended.get("r1").said.amounts
        == {
            UnfinishedCalls.ESTIMATED: {"requests": 1, **HELD},
            UnfinishedCalls.PROMPT: {"requests": 1, "input_tokens": 40},
            UnfinishedCalls.NOTHING: {"requests": 1},
        }[policy]
    )
    late = ended(bench, UsageSource.PROVIDER, Outcome.COMPLETE).reply
    assert late.corrects == "r1", "and the numbers that come late count in its place"
