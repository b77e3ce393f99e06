"""Calls priced by model and token class: held at the dearest class, charged exactly, never free for want of a price."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.operations.expire import expire
from agent.operations.extend import extend
from agent.operations.record import record
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.decisions import Code, Verdict
from protocol.entitlements import Limit, Rate
from protocol.events import Priced
from protocol.local_messages import Call, Extend, Record, Recorded, Reserve, Settle
from protocol.rates import RateCard
from protocol.units import TOKEN_CLASSES, normalise
from protocol.windows import WindowKind

BUDGET = Limit("budget", "credits", 1_000_000, WindowKind.MONTH)
SONNET = Rate(
    "credits",
    {"input_tokens": 3_000_000, "output_tokens": 15_000_000},
    model="claude-sonnet-4",
    classes={"cache_read": 300_000, "cache_write": 3_750_000},
    book="standard@7",
)
HAIKU = Rate("credits", {"input_tokens": 800_000, "output_tokens": 4_000_000}, model="claude-haiku", book="standard@7")


def call(model: str | None) -> Call:
    return Call("acme", "chat", model=model)


@pytest.fixture
def priced(bench):
    bench.entitle(BUDGET, rates=(SONNET, HAIKU))
    return bench


def hold(bench, name: str = "r1", model: str | None = "anthropic/claude-sonnet-4-20250514", **amounts: int):
    request = Reserve(reservation=name, call=call(model), amounts=amounts)
    for _ in range(4):
        reply = reserve(bench.books, request, bench.now_ms, bench.now_ms + 1)
        if reply is not None:
            return reply
        bench.sync()
        bench.commit()
    return reserve(bench.books, request, bench.now_ms, bench.now_ms)


def say(bench, name: str = "r1", model: str | None = None, tokens: dict[str, int] | None = None):
    said = Settle(reservation=name, tokens=tokens or {}, model=model)
    outcome = settle(bench.books, said, bench.now_ms, bench.wall_ms)
    reply = outcome if isinstance(outcome, Recorded) else outcome.reply
    bench.commit()
    return reply


def events(bench) -> dict:
    bench.sync()
    return {name: event for (_, name), event in bench.lender.events.items()}


def test_dearest_class_is_held_and_what_was_used_is_charged(priced) -> None:
    assert hold(priced, input_tokens=1_000, output_tokens=100).usage == 3_750 + 1_500
    used = {"input": 100, "cache_read": 900, "output": 60, "reasoning": 40}
    assert say(priced, tokens=used).amounts["credits"] == 300 + 270 + 1_500
    event = events(priced)["r1"]
    assert event.priced == (Priced("credits", "standard@7", "claude-sonnet-4"),)
    assert sum(charge.amount for charge in event.charges) == 2_070


@pytest.mark.parametrize("model", ["llama-3", None])
def test_a_model_without_a_price_is_refused_before_it_is_called(priced, model) -> None:
    hold(priced)
    refused = hold(priced, "r2", model, output_tokens=10)
    assert (refused.decision, refused.code) == (Verdict.BLOCK, Code.MODEL_UNAVAILABLE)
    assert hold(priced, "r3", model).has_access, "it uses nothing that has a price"
    more = Extend(reservation="r3", amounts={"output_tokens": 1})
    assert extend(priced.books, more, priced.now_ms, priced.now_ms).code is Code.MODEL_UNAVAILABLE


def test_a_first_call_is_lent_by_the_price_of_its_model(priced) -> None:
    request = Reserve(reservation="r1", call=call("claude-haiku"), amounts={"output_tokens": 10})
    assert reserve(priced.books, request, priced.now_ms, priced.now_ms + 10) is None
    (named,) = priced.request().customers
    assert named.first_calls[0].model == "claude-haiku"


def test_another_model_that_answers_is_charged_at_its_own_price(priced) -> None:
    hold(priced, model="claude-haiku", output_tokens=100)
    assert say(priced, model="claude-sonnet-4-latest", tokens={"output": 100}).amounts["credits"] == 1_500


def test_an_unknown_model_that_answers_counts_as_what_was_asked_for_and_its_event_says_so(priced) -> None:
    hold(priced, output_tokens=100)
    assert say(priced, model="llama-3", tokens={"output": 100}).amounts["credits"] == 1_500
    assert events(priced)["r1"].priced == (Priced("credits", "standard@7", "claude-sonnet-4", known=False),)


def test_use_of_an_unknown_model_that_nobody_reserved_counts_at_the_dearest_rate_and_its_event_says_so(priced) -> None:
    hold(priced)
    request = Record(event="e", call=call("llama-3"), amounts={"output_tokens": 10})
    reply = record(priced.books, request, priced.now_ms, priced.wall_ms, priced.now_ms)
    priced.commit()
    assert reply.reply.amounts["credits"] == 150
    assert events(priced)["e"].priced == (Priced("credits", "standard@7", known=False),)


def test_a_call_that_expires_counts_as_what_it_held(priced) -> None:
    hold(priced, input_tokens=1_000)
    priced.now_ms += 600_000
    assert expire(priced.books, priced.now_ms, priced.wall_ms) == 1
    priced.commit()
    assert events(priced)["r1"].amounts["credits"] == 3_750


@pytest.mark.parametrize("plan_changes", [False, True])
def test_prices_of_a_call_survive_a_crash(priced, plan_changes) -> None:
    hold(priced, output_tokens=100)
    priced.now_ms += 300
    priced.books.pending.touch(next(iter(priced.books.leases.values())))
    priced.commit()
    if plan_changes:
        dearer = msgspec.structs.replace(SONNET, weights={"output_tokens": 30_000_000}, classes={}, book="standard@8")
        priced.entitle(BUDGET, version=2, rates=(dearer,))
    priced.crash()
    priced.books.look_again.add("acme")
    priced.sync()
    assert say(priced, tokens={"output": 10}).amounts["credits"] == 150
    assert events(priced)["r1"].priced == (Priced("credits", "standard@7", "claude-sonnet-4"),)


def test_a_correction_goes_by_the_same_prices_over_the_whole_call(priced) -> None:
    hold(priced, output_tokens=100)
    say(priced, tokens={"output": 10})
    assert say(priced, tokens={"output": 10, "input": 10}).amounts["credits"] == 180
    told = events(priced)["r1~1"]
    assert (told.amounts["credits"], told.tokens) == (30, {"output": 0, "input": 10})
    assert told.priced == (Priced("credits", "standard@7", "claude-sonnet-4"),)


def test_customers_of_one_plan_share_its_prices(priced) -> None:
    copies = tuple(msgspec.structs.replace(rate) for rate in (SONNET, HAIKU))
    priced.entitle(BUDGET, customer="other", rates=copies)
    hold(priced)
    request = Reserve(reservation="o1", call=Call("other", "chat"))
    assert reserve(priced.books, request, priced.now_ms, priced.now_ms + 1) is None
    priced.sync()
    one, other = (priced.books.customers[name] for name in ("acme", "other"))
    assert one.card is other.card
    assert one.entitlement.rates is other.entitlement.rates
    priced.entitle(BUDGET, customer="third", rates=(SONNET,))  # the same plan, with another add-on
    assert (
        reserve(priced.books, Reserve(reservation="t1", call=Call("third", "chat")), priced.now_ms, priced.now_ms + 1)
        is None
    )
    priced.sync()
    assert priced.books.customers["third"].card is not one.card


weights = st.integers(0, 50_000_000)
splits = st.dictionaries(st.sampled_from(sorted(TOKEN_CLASSES)), st.integers(0, 2_000), min_size=1)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(st.tuples(weights, weights, st.dictionaries(st.sampled_from(sorted(TOKEN_CLASSES)), weights)), min_size=1),
    st.lists(st.tuples(st.integers(0, 99), splits), min_size=1, max_size=5),
    st.integers(1, 10_000),
)
def test_leases_pay_exactly_what_calls_came_to_whatever_their_tokens_were(make_bench, prices, calls, per) -> None:
    rates = tuple(
        Rate("credits", {"input_tokens": ins, "output_tokens": outs}, model=f"m{at}", classes=classes, per=per)
        for at, (ins, outs, classes) in enumerate(prices)
    )
    bench = make_bench()
    bench.entitle(msgspec.structs.replace(BUDGET, amount=10**12), rates=rates)
    total = 0
    for number, (which, tokens) in enumerate(calls):
        model = f"m{which % len(rates)}"
        meters = normalise({}, tokens)
        hold(bench, f"r{number}", model, **{name: meters[name] for name in ("input_tokens", "output_tokens")})
        reply = say(bench, f"r{number}", tokens=tokens)
        made = RateCard(rates).choose("chat", model).exact(meters, tokens)["credits"]
        assert reply.amounts["credits"] == made
        total += made
    told = events(bench)
    assert len(told) == len(calls)
    for event in told.values():
        assert sum(charge.amount for charge in event.charges) == event.amounts["credits"]
    assert sum(event.amounts["credits"] for event in told.values()) == total
    assert bench.lender.direct.get(("acme", BUDGET.counter, ""), 0) == 0
