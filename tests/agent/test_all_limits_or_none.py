"""A call takes from every limit on its path or from none, of whatever kinds; a dry limit makes no storm of asks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.api.dispatch import Dispatch
from agent.core.rates import RateAllowance
from agent.operations.extend import extend
from agent.operations.park import try_due
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.admission import Priority
from protocol.decisions import Decision
from protocol.entitlements import InFlight, Limit, Rate, Scope
from protocol.events import Subject
from protocol.local_messages import Call, Extend, Reserve, Settle
from protocol.windows import WindowKind

CALL = Call("acme", "chat", Subject("ann"))
KINDS = (
    Limit("quota", "output_tokens", 120, WindowKind.DAY),
    Limit("mine", "output_tokens", 70, WindowKind.MONTH, scope=Scope.USER),
    Limit("rate", "output_tokens", 600, WindowKind.MINUTE, smooth=True, burst=60),
    Limit("slots", "requests", 2, WindowKind.IN_FLIGHT),
    Limit("at-once", "output_tokens", 90, WindowKind.IN_FLIGHT),
    Limit("pool", "credits", 50, WindowKind.LIFETIME),
    Limit("each", "output_tokens", 80, WindowKind.REQUEST),
)
RATES = (Rate("credits", {"output_tokens": 300_000}),)


def usages(bench) -> dict[str, int]:
    """Held and used by limit; of rates, what is missing from the bucket."""
    found = {}
    for key, allowance in bench.books.allowances.items():
        if isinstance(allowance, RateAllowance):
            allowance.look(bench.now_ms, drain=True)
            found[key[1]] = -sum(lease.bucket for lease in allowance.leases)
        else:
            found[key[1]] = sum(lease.used for lease in allowance.leases)
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    chosen=st.sets(st.sampled_from(range(len(KINDS))), min_size=1),
    calls=st.lists(st.tuples(st.integers(0, 90), st.booleans()), min_size=1, max_size=12),
)
def test_refused_call_leaves_every_limit_as_it_was(make_bench: Any, chosen: set[int], calls: list) -> None:
    bench = make_bench()
    bench.lender.slice = 25
    limits = tuple(KINDS[index] for index in sorted(chosen))
    bench.entitle(*limits, rates=RATES)
    held: list[tuple[str, int]] = []
    for number, (amount, ends) in enumerate(calls):
        request = Reserve(reservation=f"r{number}", call=CALL, amounts={"output_tokens": amount})
        reply = None
        for _ in range(4):
            before = usages(bench)
            reply = reserve(bench.books, request, bench.now_ms, bench.now_ms + 1)
            if reply is not None:
                break
            assert usages(bench) == before
            bench.sync()
            bench.commit()
        if reply is None:
            before = usages(bench)
            reply = reserve(bench.books, request, bench.now_ms, bench.now_ms)
        assert isinstance(reply, Decision)
        after = usages(bench)
        if reply.has_access:
            held.append((request.reservation, amount))
            takes = {limit.counter: -(-amount * 3 // 10) if limit.meter == "credits" else amount for limit in limits}
            for limit in limits:
                if limit.is_leased:
                    take = 1 if limit.meter == "requests" else takes[limit.counter]
                    grown = after[limit.counter] - before.get(limit.counter, 0)
                    assert grown == (take * 60_000 if limit.smooth else take), limit.key
        else:
            assert after == before
            assert reply.limiting in {limit.key for limit in limits}
        if ends and held:
            name, used = held.pop(0)
            settle(bench.books, Settle(reservation=name, amounts={"output_tokens": used}), 0, bench.wall_ms)
            bench.commit()
        bench.now_ms += 100
    for name, used in held:
        settle(bench.books, Settle(reservation=name, amounts={"output_tokens": used}), bench.now_ms, bench.wall_ms)
    assert sum(lease.held for lease in bench.books.leases.values()) == 0


class Clock:
    def __init__(self, bench) -> None:
        self.bench = bench

    def wall_ms(self) -> int:
        return self.bench.wall_ms

    def monotonic_ms(self) -> int:
        return self.bench.now_ms


def exchanges_until_quiet(bench) -> int:
    """How many exchanges follow one another because somebody asks."""
    count = 0
    while bench.books.asking or bench.books.look_again:
        bench.sync()
        bench.commit()
        count += 1
        assert count < 50, "a storm"
    return count


@pytest.mark.parametrize("priority", list(Priority))
@pytest.mark.parametrize("amounts", [range(1, 400), range(400, 1, -1), [7] * 400], ids=["rising", "falling", "same"])
def test_dry_limit_is_asked_about_once_however_many_wait(bench, bystander, amounts, priority) -> None:
    limit = Limit("quota", "output_tokens", 500, WindowKind.DAY, batch_floor=100)
    bench.entitle(limit)
    bench.lender.direct["acme", limit.counter, ""] = 500
    bench.lender.retry_in_ms = 5_000
    bench.books.customer("acme").entitle(bench.lender.entitlements["acme"], 0)
    bench.books.customer("acme")
    dispatch = Dispatch(bench.books, Clock(bench), lambda: None)
    for number, amount in enumerate(amounts, 1):
        request = Reserve(
            id=number, reservation=f"w{number}", call=CALL, amounts={"output_tokens": amount}, priority=priority
        )
        assert dispatch(request, bystander) is None
    assert exchanges_until_quiet(bench) == 1
    assert len(bench.lender.asked) == 1
    assert not any(reply.has_access for reply in bystander.replies.values())
    assert len(bystander.replies) == len(amounts)
    for number, amount in enumerate(amounts, 1_000):
        request = Reserve(id=number, reservation=f"w{number}", call=CALL, amounts={"output_tokens": amount})
        dispatch(request, bystander)
    exchanges_until_quiet(bench)
    assert len(bench.lender.asked) <= 2, "interactive calls may ask where those of low priority were refused"


def test_asks_of_every_purpose_are_one_each_in_a_dry_period(bench, bystander) -> None:
    limit = Limit(
        "quota", "output_tokens", 100, WindowKind.DAY, batch_floor=10, in_flight=InFlight.FINISH, overage_max=20
    )
    bench.entitle(limit)
    bench.lender.retry_in_ms = 5_000
    dispatch = Dispatch(bench.books, Clock(bench), lambda: None)
    for number in range(4):
        request = Reserve(reservation=f"s{number}", call=CALL, amounts={"output_tokens": 25})
        for _ in range(3):
            reply = reserve(bench.books, request, bench.now_ms, bench.now_ms + 1)
            bench.sync()
            bench.commit()
            if reply is not None:
                break
        assert reserve(bench.books, request, bench.now_ms, bench.now_ms).has_access
    bench.lender.asked.clear()
    bench.lender.direct["acme", limit.counter, ""] = 20  # nothing is left to finish with, either
    for round_number in range(40):
        for priority in Priority:
            name = f"n{round_number}-{priority}"
            request = Reserve(id=1, reservation=name, call=CALL, amounts={"output_tokens": 5}, priority=priority)
            dispatch(request, bystander)
        for number in range(4):
            more = Extend(reservation=f"s{number}", amounts={"output_tokens": 26 + round_number % 5})
            extend(bench.books, more, bench.now_ms, bench.now_ms)
        exchanges_until_quiet(bench)
        bench.now_ms += 50
        try_due(bench.books, bench.now_ms)
    for finishing in (False, True):
        needs = [ask.need for ask in bench.lender.asked if ask.finishing is finishing]
        assert needs
        assert needs == sorted(set(needs), reverse=True), "again only for less than was refused"
        assert len(needs) <= 3


def test_share_of_a_rate_is_asked_for_by_the_largest_call_that_waits(bench, bystander) -> None:
    bench.entitle(KINDS[2])
    bench.lender.share = 0
    bench.lender.retry_in_ms = 5_000
    bench.books.customer("acme").entitle(bench.lender.entitlements["acme"], 0)
    dispatch = Dispatch(bench.books, Clock(bench), lambda: None)
    for number, amount in enumerate((5, 30, 10, 40, 20), 1):
        dispatch(Reserve(id=number, reservation=f"w{number}", call=CALL, amounts={"output_tokens": amount}), bystander)
    assert exchanges_until_quiet(bench) == 1
    assert [ask.need for ask in bench.lender.asked] == [40]
    dispatch(Reserve(id=9, reservation="w9", call=CALL, amounts={"output_tokens": 50}), bystander)
    exchanges_until_quiet(bench)
    assert [ask.need for ask in bench.lender.asked] == [40, 50], "once more for one that is larger"


@pytest.mark.parametrize("limit", [KINDS[2], KINDS[3]], ids=["rate", "slots"])
def test_limits_that_come_back_by_themselves_are_not_asked_about_all_the_time(bench, bystander, limit) -> None:
    bench.entitle(limit)
    bench.lender.retry_in_ms = 1_000
    dispatch = Dispatch(bench.books, Clock(bench), lambda: None)
    for number in range(1, 200):
        dispatch(Reserve(id=number, reservation=f"w{number}", call=CALL, amounts={"output_tokens": 30}), bystander)
    for _ in range(40):
        exchanges_until_quiet(bench)
        bench.commit()
        bench.now_ms += 50
        try_due(bench.books, bench.now_ms)
    assert sum(reply.has_access for reply in bystander.replies.values()) >= 2
    assert len(bench.lender.asked) <= 4, "one in each second"
    assert len(bystander.replies) == 199, "all were answered in time"
