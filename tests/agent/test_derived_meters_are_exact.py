"""Meters that rates make of others: rounded up once a call, pinned at the reserve, corrected to the unit."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.derived import as_counted, as_said
from agent.core.reservations import Said
from agent.operations.check import check
from agent.operations.expire import expire
from agent.operations.extend import extend
from agent.operations.record import record
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.decisions import Code
from protocol.entitlements import Limit, Rate
from protocol.events import Outcome, UsageSource
from protocol.local_messages import Call, Check, Extend, Record, Recorded, Reserve, Settle
from protocol.rates import RateCard
from protocol.units import METERS_MAX
from protocol.violations import Violation
from protocol.windows import WindowKind

CALL = Call("acme", "chat")
CREDITS = Limit("credits", "credits", 100, WindowKind.MONTH)
CHAT = Rate("credits", {"input_tokens": 1_500, "output_tokens": 6_000, "requests": 10_000}, "chat")
OTHERS = Rate("credits", {"requests": 2_000_000})
KEY = ("acme", CREDITS.counter, "")


def hold(bench, name: str = "r1", call: Call = CALL, **amounts: int):
    request = Reserve(reservation=name, call=call, amounts=amounts)
    for _ in range(4):
        reply = reserve(bench.books, request, bench.now_ms, bench.now_ms + 1)
        if reply is not None:
            return reply
        bench.sync()
        bench.commit()
    return reserve(bench.books, request, bench.now_ms, bench.now_ms)


def say(bench, name: str = "r1", **amounts: int):
    outcome = settle(bench.books, Settle(reservation=name, amounts=amounts, call=CALL), bench.now_ms, bench.wall_ms)
    reply = outcome if isinstance(outcome, Recorded) else outcome.reply
    bench.commit()
    return reply


def events(bench) -> dict:
    bench.sync()
    return {name: event for (_, name), event in bench.lender.events.items()}


@pytest.fixture
def priced(bench):
    bench.entitle(CREDITS, rates=(CHAT, OTHERS))
    return bench


def test_pool_is_held_and_charged_in_credits_of_which_each_feature_takes_its_own(priced) -> None:
    reply = hold(priced, input_tokens=1_000, output_tokens=500)
    assert reply.has_access
    assert (reply.limiting, reply.usage) == ("credits", 5)  # 1.5 + 3 + 0.01, rounded up once
    assert reply.reservation.amounts == {"requests": 1, "input_tokens": 1_000, "output_tokens": 500}, "can be said back"
    recorded = say(priced, input_tokens=900, output_tokens=100)
    assert recorded.amounts == {"requests": 1, "input_tokens": 900, "output_tokens": 100, "credits": 2}
    assert hold(priced, "r2", Call("acme", "search")).usage == 2 + 2
    event = events(priced)["r1"]
    assert (event.amounts["credits"], event.derived) == (2, ("credits",))
    assert sum(charge.amount for charge in event.charges) == 2


def test_caller_never_says_a_derived_meter_itself(priced) -> None:
    hold(priced, output_tokens=1)
    with pytest.raises(Violation) as refused:
        hold(priced, "r2", credits=1)
    assert refused.value.field == "amounts.credits"
    with pytest.raises(Violation):
        say(priced, credits=0)
    assert priced.books.reservations.get("r1") is not None, "nothing has changed"
    with pytest.raises(Violation):
        extend(priced.books, Extend(reservation="r1", amounts={"credits": 9}), priced.now_ms, priced.now_ms)
    request = Record(event="e", call=CALL, amounts={"credits": 1})
    with pytest.raises(Violation):
        record(priced.books, request, priced.now_ms, priced.wall_ms, priced.now_ms)
    with pytest.raises(Violation):
        check(priced.books, Check(call=CALL, amounts={"credits": 1}), priced.now_ms, priced.now_ms)


def test_extension_is_rounded_up_over_the_whole_call(priced) -> None:
    hold(priced, output_tokens=100)  # 0.61
    for total in (150, 160, 165):  # 0.91, 0.97, 1.00
        assert extend(priced.books, Extend(reservation="r1", amounts={"output_tokens": total}), priced.now_ms, 10**9)
    assert sum(lease.held for lease in priced.books.leases.values()) == 1
    more = Extend(reservation="r1", amounts={"output_tokens": 166})
    assert extend(priced.books, more, priced.now_ms, 10**9) is None, "the journal first"
    priced.commit()
    reply = extend(priced.books, more, priced.now_ms, 10**9)
    assert reply.has_access
    assert reply.reservation.amounts == {"requests": 1, "output_tokens": 166}
    assert sum(lease.held for lease in priced.books.leases.values()) == 2


def test_repeats_under_changed_rates_change_nothing(priced) -> None:
    first = hold(priced, output_tokens=1_000)
    priced.entitle(CREDITS, version=2, rates=(msgspec.structs.replace(CHAT, weights={"output_tokens": 50_000}),))
    priced.books.look_again.add("acme")
    priced.sync()
    again = hold(priced, output_tokens=1_000)
    assert again.reservation.amounts == first.reservation.amounts
    assert sum(lease.held for lease in priced.books.leases.values()) == 7
    assert say(priced, output_tokens=1_000).amounts["credits"] == 7
    repeated = say(priced, output_tokens=1_000)
    assert (repeated.duplicate, repeated.amounts["credits"]) == (True, 7)
    corrected = say(priced, output_tokens=2_000)
    assert (corrected.corrects, corrected.amounts["credits"]) == ("r1", 13), "by the rates of its reserve"
    told = events(priced)
    assert told["r1~1"].amounts["credits"] == 6
    assert told["r1~1"].derived == ("credits",)
    assert priced.lender.charged(KEY) >= 13
    assert priced.lender.direct == {KEY: 6}


def test_new_calls_go_by_the_new_rates(priced) -> None:
    hold(priced, output_tokens=1_000)
    priced.entitle(CREDITS, version=2, rates=(Rate("credits", {"output_tokens": 50_000}),))
    priced.books.look_again.add("acme")
    priced.sync()
    assert hold(priced, "r2", output_tokens=100).usage == 7 + 5


def test_rates_of_a_call_survive_a_crash(priced) -> None:
    hold(priced, output_tokens=1_000)
    priced.now_ms += 300
    priced.books.pending.touch(next(iter(priced.books.leases.values())))
    priced.commit()
    priced.entitle(CREDITS, version=2, rates=(Rate("credits", {"output_tokens": 50_000}),))
    priced.crash()
    priced.books.look_again.add("acme")
    priced.sync()
    assert say(priced, output_tokens=1_000).amounts["credits"] == 7


def test_what_was_said_before_a_crash_is_still_a_repeat_and_can_be_corrected(priced) -> None:
    hold(priced, output_tokens=1_000)
    say(priced, output_tokens=1_000)
    priced.crash()
    assert say(priced, output_tokens=1_000).duplicate
    assert say(priced, output_tokens=2_000).amounts["credits"] == 13
    assert events(priced)["r1~1"].amounts == {"requests": 0, "output_tokens": 1_000, "credits": 6}


def test_expired_call_is_counted_with_what_it_held_derived_meters_included(priced) -> None:
    hold(priced, output_tokens=1_000)
    priced.now_ms += 600_000
    assert expire(priced.books, priced.now_ms, priced.wall_ms) == 1
    priced.commit()
    assert events(priced)["r1"].amounts["credits"] == 7


def test_first_call_says_what_its_caller_said(priced) -> None:
    hold_request = Reserve(reservation="r1", call=CALL, amounts={"output_tokens": 10})
    assert reserve(priced.books, hold_request, priced.now_ms, priced.now_ms + 10) is None
    (named,) = priced.request().customers
    assert named.first_calls[0].amounts == {"requests": 1, "output_tokens": 10}


def test_pool_that_is_used_up_refuses_in_credits(priced) -> None:
    assert hold(priced, output_tokens=16_000).has_access
    refused = hold(priced, "r2", output_tokens=2_000)
    assert refused.code is Code.USAGE_LIMIT_REACHED
    assert "has 3 of 100 credits left, this call needs 13" in refused.message


def test_more_of_it_than_a_quantity_holds_is_refused_before_anything_changes(priced) -> None:
    hold(priced, "r1", Call("acme", "search"))
    with pytest.raises(Violation) as refused:
        say(priced, requests=2**53 - 1)
    assert f"make {2**54 - 2} credits" in refused.value.message
    assert priced.books.reservations.get("r1") is not None


def said(amounts: dict[str, int], tokens: dict[str, int] | None = None, model: str | None = None) -> Said:
    return Said(amounts, tokens or {}, UsageSource.PROVIDER, Outcome.COMPLETE, model, None)


quantities = st.dictionaries(st.sampled_from(["requests", "input_tokens", "output_tokens"]), st.integers(0, 10**6))
weights = st.dictionaries(
    st.sampled_from(["requests", "input_tokens", "output_tokens"]), st.integers(0, 10**7), min_size=1
)


@given(quantities, weights)
def test_it_is_the_exact_sum_rounded_up_and_can_be_taken_off_again(meters: dict[str, int], made_of: dict) -> None:
    card = RateCard((Rate("credits", made_of),))
    counted = as_counted(card, CALL, said(meters))
    exact = sum(meters.get(name, 0) * weight for name, weight in made_of.items())
    assert exact <= counted["credits"] * 1_000_000 < exact + 1_000_000
    assert as_said(card, CALL, counted) == meters


def test_as_many_meters_as_a_call_may_have_include_those_that_are_derived() -> None:
    meters = {f"m{number}": 1 for number in range(METERS_MAX)}
    with pytest.raises(Violation):
        as_counted(RateCard((Rate("credits", {"m0": 1}),)), CALL, said(meters))
