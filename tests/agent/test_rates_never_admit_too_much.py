"""Shares of a rate: whole numbers at any speed, never more than burst + rate x time, and nothing lost to rounding."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.rates import RateAllowance, RateShare
from protocol.instants import DURATION_MS_MAX, INSTANT_MS_MAX
from protocol.leases import Grant, Standing, burst_left

KEY = ("acme", "*/output_tokens/minute-rate/customer", "")
MINUTE_MS = 60_000
NOW_MS = 1_000_000

amounts = st.integers(1, 10**9)
periods = st.sampled_from([60_000, 3_600_000, 86_400_000])
gaps = st.lists(st.integers(0, 5_000), max_size=30)


def share(amount: int, burst: int, level: int, per_ms: int = MINUTE_MS, name: str = "one") -> RateShare:
    grant = Grant(
        name, *KEY, amount, 7 * 10**12, 0, INSTANT_MS_MAX, DURATION_MS_MAX, Standing(amount, 0),
        per_ms=per_ms, burst=burst, level=level,
    )  # fmt: skip
    return RateShare(grant, NOW_MS, NOW_MS)


def allowance(*shares: RateShare) -> RateAllowance:
    made = RateAllowance(KEY, NOW_MS)
    made.burst_max = sum(one.burst for one in shares)
    for one in shares:
        made.take_in(one)
    return made


@given(amounts, amounts, periods, gaps)
def test_bucket_is_exact_however_often_it_is_looked_at(amount: int, burst: int, per_ms: int, steps: list[int]) -> None:
    often, once = share(amount, burst, 0, per_ms), share(amount, burst, 0, per_ms)
    now_ms = NOW_MS
    for step in steps:
        now_ms += step
        often.fill(now_ms)
    expected = min(Fraction(burst), Fraction(amount * (now_ms - NOW_MS), per_ms))
    assert often.fill(now_ms) == once.fill(now_ms) == int(expected)


@given(
    st.lists(st.tuples(st.integers(1, 2_000), st.integers(1, 400), st.integers(0, 400)), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 4_000), st.integers(0, 300), st.integers(0, 300)), max_size=40),
)
def test_no_span_of_time_admits_more_than_burst_and_rate(lent, calls) -> None:
    """All that calls took and did not give back, between any two instants, on any number of shares."""
    one = allowance(*(share(a, b, min(b, c), name=f"s{i}") for i, (a, b, c) in enumerate(lent)))
    rate, burst = sum(a for a, _, _ in lent), sum(b for _, b, _ in lent)
    now_ms, taken = NOW_MS, [(NOW_MS, 0)]
    for wait_ms, wanted, used in calls:
        now_ms += wait_ms
        if one.look(now_ms, drain=True) >= wanted:
            holds = one.take(wanted, now_ms, drain=True)
            assert sum(part for _, part in holds) == wanted
            for lease, part in holds:
                assert lease.end_hold(part, min(used, part), False) == 0
            taken.append((now_ms, sum(min(used, part) for _, part in holds)))
    for index, (start_ms, _) in enumerate(taken):
        in_all = 0
        for at_ms, amount in taken[index:]:
            in_all += amount
            assert in_all <= burst + Fraction(rate * (at_ms - start_ms), MINUTE_MS)


@given(amounts, st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_it_says_to_the_millisecond_when_there_will_be_enough(amount: int, burst: int, level: int, wanted: int) -> None:
    one = allowance(share(amount, burst, min(level, burst)))
    in_ms = one.fills_in_ms(wanted, NOW_MS)
    if wanted > burst:
        assert in_ms is None, "never with this share"
        return
    assert in_ms is not None
    assert one.look(NOW_MS + in_ms, drain=True) >= wanted
    if in_ms:
        early = allowance(share(amount, burst, min(level, burst)))
        assert early.look(NOW_MS + in_ms - 1, drain=True) < wanted


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=5))
def test_lowered_share_keeps_its_part_of_the_burst_and_says_what_it_drops(amount, burst, level, keeps) -> None:
    one = share(amount, burst, min(level, burst))
    for keep in keeps:
        before = one.level
        lowered = keep < one.cap
        one.lower(keep)
        if lowered:
            assert one.burst == burst_left(amount, burst, keep)
            assert one.report().level == one.dropped == max(0, before - one.burst)
            assert one.level + one.dropped == before
        assert one.level <= one.burst
        assert (one.report().cap, one.report().settled) == (one.cap, 0)


def test_lowered_share_fills_as_slowly_as_it_was_lowered() -> None:
    one = share(60, 10, 0)
    one.lower(30)
    assert (one.fill(NOW_MS + 4_000), one.fill(NOW_MS + 60_000)) == (2, 5)


def test_what_runs_over_is_lost_and_what_is_given_back_is_not_more_than_the_burst() -> None:
    one = allowance(share(60, 10, 10))
    holds = one.take(10, NOW_MS, drain=True)
    assert one.look(NOW_MS + 5_000, drain=True) == 5
    for lease, part in holds:
        lease.end_hold(part, 2, True)
    assert one.look(NOW_MS + 5_000, drain=True) == 10
    assert one.look(NOW_MS + 60_000, drain=True) == 10


def test_use_that_nobody_held_is_owed_and_paid_off_by_the_fill() -> None:
    one = allowance(share(60, 10, 10))
    assert one.charge(25, NOW_MS) == []
    assert one.look(NOW_MS, drain=True) == -15
    assert one.fills_in_ms(1, NOW_MS) == 16_000
    assert one.look(NOW_MS + 16_000, drain=True) == 1


def test_next_share_pays_what_the_last_one_owed() -> None:
    first = share(60, 10, 10)
    one = allowance(first)
    one.charge(25, NOW_MS)
    first.give_up(NOW_MS)
    one.take_out(first)
    one.take_in(share(60, 10, 10, name="two"))
    assert one.look(NOW_MS, drain=True) == -5


def test_share_beyond_its_own_term_is_dead_whatever_the_limit_says_of_being_offline() -> None:
    first = share(60, 10, 10)
    one = allowance(first)
    assert one.look(first.expires_at_ms - 1, drain=True) == 10
    assert one.look(first.expires_at_ms, drain=True) == 0
    assert one.take(1, first.expires_at_ms, drain=True) == []
    assert first.over(first.expires_at_ms)


@pytest.mark.parametrize("passed_ms", [0, 500, 1_000, 7_777])
def test_share_that_is_given_up_tells_what_was_saved_up_and_fills_no_more(passed_ms: int) -> None:
    first = share(60, 10, 3)
    first.give_up(NOW_MS + passed_ms)
    first.give_up(NOW_MS + 100_000)
    report = first.report()
    assert (report.closed, report.level) == (True, min(10, 3 + passed_ms // 1_000))


def test_small_call_does_not_pass_those_who_queue_before_it() -> None:
    one = allowance(share(60, 10, 4))
    one.queued = 8  # somebody waits for 8
    assert one.look(NOW_MS, drain=True) == -4
    assert one.fills_in_ms(2, NOW_MS) == 6_000
