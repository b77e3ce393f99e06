"""Credits burn in one published order, never more than was granted, and never twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.credits import LATE_MS, Category, Grant, Pool, burn, give_back, in_burn_order, rollover

NOW = 1_000_000_000
DAY = 86_400_000


def grant(name: str, amount: int = 100, **more: object) -> Grant:
    return Grant(name, amount, more.pop("burned", 0), more.pop("from_ms", 0), **more)  # type: ignore[arg-type]


def test_the_order_is_priority_end_category_cost_beginning_and_id() -> None:
    expected = [
        grant("urgent", until_ms=NOW + 9 * DAY, priority=0),
        grant("soon", until_ms=NOW + DAY, priority=5),
        grant("gift", until_ms=NOW + 2 * DAY, priority=5, category=Category.PROMOTIONAL),
        grant("rolled", until_ms=NOW + 2 * DAY, priority=5, category=Category.ROLLOVER),
        grant("included", until_ms=NOW + 2 * DAY, priority=5, category=Category.INCLUDED),
        grant("cheap", until_ms=NOW + 2 * DAY, priority=5, cost_micros=1),
        grant("old", until_ms=NOW + 2 * DAY, priority=5, cost_micros=2),
        grant("young", until_ms=NOW + 2 * DAY, priority=5, cost_micros=2, from_ms=1),
        grant("younger", until_ms=NOW + 2 * DAY, priority=5, cost_micros=2, from_ms=1),
        grant("endless", priority=5),
        grant("last", until_ms=NOW + DAY, priority=6),
    ]
    assert in_burn_order(reversed(expected)) == expected


grants = st.lists(
    st.builds(
        lambda at, amount, share, start, length, priority, closed: Grant(
            f"g{at}",
            amount,
            amount * share // 10,
            NOW + start * DAY,
            None if length is None else NOW + (start + length) * DAY,
            priority,
            forfeited=amount - amount * share // 10 if closed and length is not None and start + length <= 0 else 0,
            closed=closed and length is not None and start + length <= 0,
        ),
        st.integers(0, 10**6),
        st.integers(0, 1_000),
        st.integers(0, 10),
        st.integers(-5, 5),
        st.one_of(st.none(), st.integers(1, 6)),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda one: one.grant,
)


def after(some: list[Grant], burns: list) -> list[Grant]:
    found = {one.grant: one for one in some}
    for part in burns:
        one = found[part.grant]
        forfeited = one.forfeited - part.amount if part.late else one.forfeited
        found[part.grant] = one._replace(burned=one.burned + part.amount, forfeited=forfeited)
    return list(found.values())


@given(grants, st.integers(0, 5_000), st.integers(-6 * DAY, 0))
def test_what_is_used_is_burned_once_and_never_more_than_there_is(some: list[Grant], amount: int, ago: int) -> None:
    burns, rest = burn(some, amount, NOW + ago, NOW)
    assert sum(part.amount for part in burns) + rest == amount
    assert rest >= 0
    for one in after(some, burns):
        assert 0 <= one.burned <= one.amount
        assert one.forfeited >= 0
        assert one.burned + one.forfeited <= one.amount


@given(grants, st.integers(1, 5_000))
def test_what_counts_now_is_burned_before_anything_is_overdrawn(some: list[Grant], amount: int) -> None:
    burns, rest = burn(some, amount, NOW, NOW)
    left = [one for one in after(some, burns) if one.counts(NOW) and one.left]
    assert not (rest and left)


@given(grants, st.integers(1, 5_000))
def test_giving_back_undoes_what_was_burned(some: list[Grant], amount: int) -> None:
    burned = sum(one.burned for one in some)
    burns, rest = give_back(some, amount)
    assert rest == max(0, amount - burned)
    assert sum(one.burned for one in after(some, burns)) == burned - (amount - rest)


@given(grants, st.integers(0, 5_000))
def test_a_balance_is_what_grants_that_count_have_left(some: list[Grant], amount: int) -> None:
    """The ceiling less all that was burned is what is left, before and after a burn: nothing is spent twice."""
    for now in (some, after(some, burn(some, amount, NOW, NOW)[0])):
        pool = Pool(sum(one.burned for one in now if one.closed), tuple(one for one in now if not one.closed))
        burned = sum(one.burned for one in now if one.from_ms <= NOW)
        assert pool.ceiling(NOW) - burned == sum(one.left for one in now if one.counts(NOW))


def test_use_that_is_told_of_late_burns_the_grant_that_counted_then() -> None:
    over = grant("over", until_ms=NOW - DAY, forfeited=60, burned=40, closed=True)
    fresh = grant("fresh", from_ms=NOW - DAY)
    assert burn([over, fresh], 70, NOW - DAY - 1, NOW)[0] == [("over", 60, True), ("fresh", 10, False)]
    assert burn([over, fresh], 70, NOW - DAY + LATE_MS, NOW)[0] == [("fresh", 70, False)]


def test_what_was_lent_just_before_a_grant_ended_is_taken_from_it() -> None:
    over = grant("over", until_ms=NOW - 1_000, forfeited=100, closed=True)
    assert burn([over], 30, NOW - 500, NOW) == ([("over", 30, True)], 0)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_rollover_is_bounded_both_ways(before: int, least: int, more: int) -> None:
    most = least + more
    assert least <= rollover(before, least, most) <= most
    assert rollover(before, 0, most) == min(before, most)
