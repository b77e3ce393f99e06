"""Sizes of slices: rules that hold for every allowance and every crowd."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.allocation import Crowd, Slice, Want, beyond_limit, keep_shares, slice_of, wanted_back

amounts = st.integers(0, 2**53 - 1)
small = st.integers(0, 10_000)
wants = st.builds(Want, small, small, small)


def crowd_of(want: Want, others: list[Want], *, central: bool = False) -> Crowd:
    all_of_them = [want, *others]
    return Crowd(
        len(all_of_them),
        sum(other.demand_per_min for other in all_of_them),
        max(other.typical for other in all_of_them),
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
    wants = [Want(0, demand, 10) for demand in (600, 1_200, 6_000)]
    crowd = Crowd(3, 7_800, 10)
    slices = [slice_of(7_800, want, crowd) for want in wants]
    assert [lent.amount for lent in slices if lent] == [300, 600, 1_300]  # half a minute each; the last has its share


def test_few_calls_a_host_are_lent_one_by_one_until_there_is_clearly_more() -> None:
    def lent(available: int, *, central: bool) -> Slice | None:
        return slice_of(available, Want(10, 600, 10), Crowd(10, 6_000, 10, central))

    assert lent(199, central=False) == Slice(10, central=True)
    assert lent(200, central=False) == Slice(10, central=False)
    assert lent(299, central=True) == Slice(10, central=True)
    assert lent(300, central=True) == Slice(15, central=False)


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


@given(small, st.integers(-50, 5_000), st.integers(0, 50_000), st.integers(0, 50))
def test_a_recall_wants_what_is_lacking_if_it_is_there(need: int, available: int, elsewhere: int, holders: int) -> None:
    wanted = wanted_back(need, available, elsewhere, holders)
    assert 0 <= wanted <= elsewhere
    assert max(available, 0) + wanted >= min(need, max(available, 0) + elsewhere)
