"""A recall brings what is wanted if it is there: from idle holders first, then so that all rests last equally long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.recalls import Rest, keep_after_recall

rests = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2),
    st.builds(Rest, st.integers(0, 10_000), st.integers(0, 5_000)),
    min_size=1,
    max_size=12,
)


def brought(held: dict[str, Rest], keep: dict[str, int]) -> int:
    return sum(held[lease].amount - kept for lease, kept in keep.items())


@given(held=rests, wanted=st.integers(1, 60_000))
def test_what_is_wanted_comes_back_if_it_is_there_and_nobody_gives_more_than_it_has(
    held: dict[str, Rest], wanted: int
) -> None:
    keep = keep_after_recall(held, wanted)
    assert all(0 <= kept < held[lease].amount for lease, kept in keep.items())
    assert brought(held, keep) >= min(wanted, sum(rest.amount for rest in held.values()))


@given(held=rests, wanted=st.integers(1, 60_000))
def test_the_busy_are_asked_only_when_the_idle_have_not_enough(held: dict[str, Rest], wanted: int) -> None:
    idle = sum(rest.amount for rest in held.values() if not rest.demand_per_min)
    busy = [lease for lease in keep_after_recall(held, wanted) if held[lease].demand_per_min]
    assert not busy or idle < wanted


def test_busy_holders_keep_what_lasts_equally_long() -> None:
    held = {"fast": Rest(600, 600), "slow": Rest(600, 60)}
    assert keep_after_recall(held, 540) == {"slow": 60}
    keep = keep_after_recall(held, 870)
    assert keep["fast"] == 10 * keep["slow"] == 300


def test_idle_holders_give_down_to_one_level() -> None:
    assert keep_after_recall({"a": Rest(100, 0), "b": Rest(40, 0), "c": Rest(10, 5)}, 60) == {"a": 40}
