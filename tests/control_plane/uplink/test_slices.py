"""Sizes of slices: rules that hold for every allowance and every crowd."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.allocation import (
    Crowd,
    Slice,
    Want,
    beyond_limit,
    keep_shares,
    recalls_early,
    retry_in_ms,
    slice_of,
    wanted_back,
    worth_announcing,
    worth_asking_back,
)

amounts = st.integers(0, 2**53 - 1)
small = st.integers(0, 10_000)
wants = st.builds(Want, small, small, small)


def crowd_of(want: Want, others: list[Want], *, central: bool = False) -> Crowd:
    all_of_them = [want, *others]
    return Crowd(
        len(all_of_them),
        sum(other.demand_per_min for other in all_of_them),
        central,
    )


@given(
    st.integers(-1_000, 2**53), st.builds(Want, amounts, amounts, amounts), st.lists(wants, max_size=5), st.booleans()
)
def test_what_is_needed_is_met_or_denied_and_never_more_than_there_is(
    available: int, want: Want, others: list[Want], central: bool
) -> None:
    given_ = slice_of(available, want, crowd_of(want, others, central=central))
    if given_ is None:
        assert want.need > available or want.need == 0 or available <= 0
    else:
        assert type(given_.amount) is int
        assert max(want.need, 1) <= given_.amount <= available


@given(st.integers(1, 100_000), st.lists(st.builds(Want, st.just(0), small, small), min_size=1, max_size=20))
def test_at_most_half_of_what_was_free_is_lent_ahead_of_need(available: int, wants: list[Want]) -> None:
    left = available
    for want in wants:
        lent = slice_of(left, want, crowd_of(want, [other for other in wants if other is not want]))
        left -= lent.amount if lent else 0
    assert available - left <= available // 2


@given(st.integers(1, 10**9), wants, st.lists(wants, max_size=5), st.integers(1, 50))
def test_ten_times_everything_lends_ten_times_as_much(
    available: int, want: Want, others: list[Want], times: int
) -> None:
    def scaled(one: Want) -> Want:
        return Want(one.need * times, one.demand_per_min * times, one.typical * times)

    plain = slice_of(available, want, crowd_of(want, others))
    large = slice_of(available * times, scaled(want), crowd_of(scaled(want), [scaled(other) for other in others]))
    if plain is None:
        assert large is None or (want.need == 0 and large.amount < times)
    else:
        assert large is not None
        assert large.central == plain.central
        assert 0 <= large.amount - plain.amount * times < times


@given(st.integers(1, 10**9), wants, st.lists(wants, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_the_others_changes_nothing(
    available: int, want: Want, others: list[Want], random: object
) -> None:
    shuffled = list(others)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert slice_of(available, want, crowd_of(want, others)) == slice_of(available, want, crowd_of(want, shuffled))


def test_every_slice_would_last_equally_long() -> None:
    wants = [Want(0, demand, 10) for demand in (600, 1_200, 3_000, 3_000)]
    crowd = Crowd(4, 7_800)
    plenty = [slice_of(78_000, want, crowd) for want in wants]
    assert [lent.amount for lent in plenty if lent] == [300, 600, 1_500, 1_500]  # half a minute each
    little = [slice_of(1_560, want, crowd) for want in wants]
    assert [lent.amount for lent in little if lent] == [195, 195, 300, 300]  # six seconds, or an equal part of a half


def test_few_calls_a_minute_borrow_one_by_one_and_so_do_new_holders_but_the_first() -> None:
    assert slice_of(10_000, Want(10, 9, 10), Crowd(10, 6_000)) == Slice(10, central=True)
    assert slice_of(10_000, Want(10, 10, 10), Crowd(10, 6_000)) == Slice(20, central=False)
    assert slice_of(10_000, Want(10, 0, 10), Crowd(10, 6_000)) == Slice(10, central=True)
    assert slice_of(10_000, Want(10, 0, 10), Crowd(1, 0)) == Slice(90, central=False)
    assert slice_of(10_000, Want(0, 9, 10), Crowd(10, 6_000)) is None


def test_no_holder_among_others_gets_more_than_a_quarter_of_what_is_left() -> None:
    lent = slice_of(1_000, Want(10, 60_000, 10), Crowd(2, 60_000))
    assert lent == Slice(250, central=False)


def test_few_calls_a_host_are_lent_one_by_one_until_there_is_clearly_more() -> None:
    def lent(available: int, *, central: bool) -> Slice | None:
        return slice_of(available, Want(10, 600, 10), Crowd(10, 6_000, central))

    assert lent(399, central=False) == Slice(10, central=True)
    assert lent(400, central=False) == Slice(20, central=False)
    assert lent(599, central=True) == Slice(10, central=True)
    assert lent(600, central=True) == Slice(30, central=False)


@given(small, st.integers(-100, 10_000), st.integers(0, 10_000))
def test_overage_is_what_lies_beyond_the_amount(amount: int, taken: int, lent: int) -> None:
    beyond = beyond_limit(amount, taken, lent)
    assert 0 <= beyond <= lent
    assert beyond == len(range(max(taken, amount), taken + lent)) if lent else beyond == 0


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 1_000), max_size=8), st.integers(0, 5_000))
def test_a_recall_brings_what_is_wanted_and_takes_from_the_largest_first(free: dict[str, int], wanted: int) -> None:
    keeps = keep_shares(free, wanted)
    brought = sum(free[lease] - keep for lease, keep in keeps.items())
    assert brought >= min(wanted, sum(free.values()))
    assert brought <= min(wanted, sum(free.values())) + len(keeps)
    assert len(set(keeps.values())) <= 1
    level = min(keeps.values(), default=None)
    assert level is None or all(rest <= level for lease, rest in free.items() if lease not in keeps)


@given(small, st.integers(-50, 5_000), st.integers(0, 50_000))
def test_a_recall_wants_what_is_lacking_if_it_is_there_and_half_of_what_lies_idle(
    need: int, available: int, elsewhere: int
) -> None:
    wanted = wanted_back(need, available, elsewhere)
    assert elsewhere <= 2 * wanted <= 2 * elsewhere
    assert max(available, 0) + wanted >= min(need, max(available, 0) + elsewhere)


def test_slivers_are_not_asked_back_and_what_a_large_fleet_returns_bit_by_bit_is_not_announced() -> None:
    assert [worth_asking_back(rest, 80) for rest in (0, 9, 10)] == [False, False, True]
    assert [worth_announcing(freed, 6_300) for freed in (0, 99, 100)] == [False, False, True]
    assert worth_announcing(1, 0)


def test_leases_are_asked_back_early_where_more_lies_with_holders_than_is_left() -> None:
    assert recalls_early(100, 111, 10)
    assert not recalls_early(100, 110, 10)


def test_the_more_are_short_of_little_the_later_they_ask_again() -> None:
    assert [retry_in_ms(10, lent, 20) for lent in (1_000, 200, 100, 66, 0)] == [500, 500, 1_000, 1_500, 2_000]
