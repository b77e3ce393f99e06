"""What must find room before a model is called: as the limit on the call's path says that wants most."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.core.estimate import LONG_ANSWER_TOKENS, OUTPUT_TOKENS_MAX, SLICE_TOKENS
from agent.core.metered_call import is_allowed
from agent.core.prompts import Prompt
from agent.core.tokens.usage import Usage
from protocol.admission import Estimate
from protocol.decisions import Code
from protocol.entitlements import Limit, Rate, Scope
from protocol.events import Outcome, Subject, UsageSource
from protocol.local_messages import Call, End, Feed, Reserve
from protocol.windows import WindowKind
from tests.agent.test_model_calls_are_read_here import BODY, STREAM, Caller

ROOMY = 1_000_000


def limit(key: str, estimate: Estimate = Estimate.SLICES, meter: str = "output_tokens", **more: Any) -> Limit:
    return Limit(key, meter, more.pop("amount", ROOMY), more.pop("window", WindowKind.DAY), estimate=estimate, **more)


def held(bench: Any, *limits: Limit, rates: tuple[Rate, ...] = (), body: bytes = BODY, **more: Any) -> dict[str, int]:
    """What is held for one call under these limits: the first that this host hears of the customer."""
    caller = Caller(bench)
    bench.entitle(*limits, rates=rates)
    return dict(caller.begin(body=body, **more).reservation.amounts)


def changed(bench: Any, *limits: Limit) -> None:
    """The customer has a new version, and this host knows it."""
    bench.entitle(*limits, version=2)
    bench.books.look_again.add("acme")
    bench.sync()


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [(Estimate.SLICES, SLICE_TOKENS), (Estimate.P95, LONG_ANSWER_TOKENS), (Estimate.WORST, OUTPUT_TOKENS_MAX)],
)
def test_a_stream_holds_what_its_limit_says(bench: Any, estimate: Estimate, expected: int) -> None:
    assert held(bench, limit("out", estimate))["output_tokens"] == expected


def test_once_answers_are_known_p95_is_what_few_of_them_pass(bench: Any) -> None:
    for outputs in [5_000] * 39 + [9_000]:
        usage = Usage({"output": outputs}, {}, UsageSource.PROVIDER, Outcome.COMPLETE)
        bench.books.estimates.learn("m-1", Prompt(100), usage)
    assert 5_000 <= held(bench, limit("out", Estimate.P95))["output_tokens"] <= 5_500


def test_of_several_limits_the_one_that_wants_most_decides(bench: Any) -> None:
    limits = (
        limit("a"),
        limit("b", Estimate.WORST, window=WindowKind.MONTH),
        limit("c", Estimate.P95, scope=Scope.USER),
    )
    assert held(bench, *limits)["output_tokens"] == OUTPUT_TOKENS_MAX


@pytest.mark.parametrize(
    "elsewhere",
    [
        limit("b", Estimate.WORST, meter="images"),
        limit("b", Estimate.WORST, feature="search"),
        limit("b", Estimate.WORST, roles=("intern",)),
    ],
    ids=["of another meter", "of another feature", "of another role"],
)
def test_a_limit_that_the_call_does_not_touch_decides_nothing(bench: Any, elsewhere: Limit) -> None:
    call = Call("acme", "chat", Subject(role="lead"))
    assert held(bench, limit("a"), elsewhere, call=call)["output_tokens"] == SLICE_TOKENS


def test_a_limit_on_what_rates_make_of_tokens_decides_too(bench: Any) -> None:
    rates = (Rate("credits", {"output_tokens": 1_000_000}),)
    amounts = held(bench, limit("pool", Estimate.WORST, meter="credits"), rates=rates)
    assert amounts["output_tokens"] == OUTPUT_TOKENS_MAX


def test_worst_is_at_most_what_the_request_allows(bench: Any) -> None:
    body = json.dumps(json.loads(BODY) | {"max_tokens": 700, "n": 2}).encode()
    assert held(bench, limit("out", Estimate.WORST), body=body)["output_tokens"] == 1_400


def test_what_the_caller_wants_is_the_least(bench: Any) -> None:
    assert held(bench, limit("out"), estimate=Estimate.WORST)["output_tokens"] == OUTPUT_TOKENS_MAX
    assert held(bench, limit("out", Estimate.P95), estimate=Estimate.WORST)["output_tokens"] == OUTPUT_TOKENS_MAX


def test_a_call_whose_worst_does_not_fit_is_refused_where_slices_would_have_done(bench: Any) -> None:
    caller = Caller(bench)
    bench.entitle(limit("out", Estimate.WORST, amount=OUTPUT_TOKENS_MAX - 1))
    refused = caller.begin()
    assert (refused.has_access, refused.code) == (False, Code.REQUESTED_USAGE_EXCEEDS_LIMIT)
    changed(bench, limit("out", amount=OUTPUT_TOKENS_MAX - 1))
    assert is_allowed(caller.begin("r2"))


def test_a_stream_that_holds_its_worst_asks_for_no_more_and_gives_the_rest_back(bench: Any) -> None:
    caller = Caller(bench)
    bench.entitle(limit("out", Estimate.WORST))
    caller.begin()
    assert caller.say(Feed(reservation="r", body=STREAM)).cut is None
    assert bench.books.reservations.get("r").amounts["output_tokens"] == OUTPUT_TOKENS_MAX
    assert caller.say(End(reservation="r", status=200, offset=len(STREAM))).amounts["output_tokens"] == 15
    bench.sync()
    assert sum(lease.used for lease in bench.books.leases.values()) == 15


def test_a_repeat_holds_the_same_again_whatever_has_changed_meanwhile(bench: Any) -> None:
    caller = Caller(bench)
    bench.entitle(limit("out", Estimate.WORST))
    reserve = Reserve(
        reservation="r",
        call=Call("acme", "chat"),
        amounts={"output_tokens": 5},
        estimates={Estimate.P95: {"output_tokens": 50}, Estimate.WORST: {"output_tokens": 500}},
    )
    assert caller.say(reserve).reservation.amounts["output_tokens"] == 500
    changed(bench, limit("out"))
    assert caller.say(reserve).reservation.amounts["output_tokens"] == 500


def test_what_is_learned_of_a_model_is_known_by_the_name_that_requests_call_it(bench: Any) -> None:
    """Providers answer under a longer name, with a date."""
    caller = Caller(bench)
    bench.entitle(limit("out", Estimate.P95))
    before = caller.begin("first").reservation.amounts
    for number in range(30):
        caller.begin(f"r{number}")
        caller.say(End(reservation=f"r{number}", status=200, body=STREAM))
    amounts = caller.begin("last").reservation.amounts
    assert b'"model":"m-1"' not in STREAM
    assert 15 <= amounts["output_tokens"] <= 17 < before["output_tokens"]
    assert amounts["input_tokens"] < before["input_tokens"]


def test_an_unlimited_limit_asks_for_nothing(bench: Any) -> None:
    unlimited = limit("b", Estimate.WORST, window=WindowKind.MONTH, amount=None)
    assert held(bench, limit("a"), unlimited)["output_tokens"] == SLICE_TOKENS


@pytest.mark.parametrize(
    ("said", "expected"),
    [((Estimate.P95, Estimate.WORST), 500), ((Estimate.P95,), 50), ((), 5)],
    ids=["all", "p95 alone", "none"],
)
def test_of_what_the_caller_has_said_the_largest_that_is_asked_for_is_held(
    bench: Any, said: tuple[Estimate, ...], expected: int
) -> None:
    caller, known = Caller(bench), {Estimate.P95: {"output_tokens": 50}, Estimate.WORST: {"output_tokens": 500}}
    bench.entitle(limit("out", Estimate.WORST))
    reserve = Reserve(
        reservation="r",
        call=Call("acme", "chat"),
        amounts={"output_tokens": 5},
        estimates={estimate: known[estimate] for estimate in said},
    )
    assert caller.say(reserve).reservation.amounts["output_tokens"] == expected
