"""Moving a subscription to a newer version: from an instant on, and nothing but the version is another."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.arrangements import arrange
from control_plane.core.plan_migrations import Target, orders
from control_plane.core.subscriptions import AddOn, Change, Track, in_order

INSTANTS = st.integers(0, 20)
VERSIONS = st.integers(1, 4)
plans = st.tuples(st.sampled_from(["pro", "free"]), VERSIONS)
add_ons = st.lists(
    st.builds(AddOn, st.sampled_from(["more", "extra"]), VERSIONS, st.integers(1, 3)),
    max_size=2,
    unique_by=lambda one: one.add_on,
).map(tuple)


@st.composite
def timelines(draw: st.DrawFn) -> tuple[Change, ...]:
    """A subscription of which some lies ahead."""
    changes = [Change(Track.PLAN, draw(plans), draw(INSTANTS)) for _ in range(draw(st.integers(1, 5)))]
    changes += [Change(Track.ADD_ONS, draw(add_ons), draw(INSTANTS)) for _ in range(draw(st.integers(0, 3)))]
    changes += [Change(Track.SEATS, draw(VERSIONS), draw(INSTANTS)) for _ in range(draw(st.integers(0, 2)))]
    return tuple(change._replace(serial=at) for at, change in enumerate(changes, 1))


@st.composite
def targets(draw: st.DrawFn) -> Target:
    track = draw(st.sampled_from([Track.PLAN, Track.ADD_ONS]))
    key = "pro" if track is Track.PLAN else "more"
    return Target(track, key, draw(VERSIONS), draw(st.frozensets(VERSIONS, max_size=2)))


def value_at(changes: tuple[Change, ...], track: Track, at_ms: int) -> Any:
    past = [one for one in in_order(changes) if one.track is track and one.from_ms <= at_ms]
    return past[-1].value if past else None


def with_arranged(changes: tuple[Change, ...], wanted: Any, now_ms: int) -> tuple[Change, ...]:
    arranged = arrange(changes, wanted, now_ms)
    kept = [one for one in changes if one.serial not in arranged.replaced]
    return (*kept, *(one._replace(serial=1_000 + at) for at, one in enumerate(arranged.changes)))


@given(timelines(), targets(), INSTANTS, INSTANTS)
def test_from_an_instant_on_the_version_is_another_and_nothing_else_ever_is(
    changes: tuple[Change, ...], target: Target, now_ms: int, later_ms: int
) -> None:
    from_ms = max(now_ms, later_ms)
    wanted = orders(changes, target, from_ms, now_ms)
    after = changes if wanted is None else with_arranged(changes, wanted, now_ms)
    for at_ms in range(25):
        for track in (Track.PLAN, Track.ADD_ONS, Track.SEATS):
            expected = value_at(changes, track, at_ms)
            if track is target.track and at_ms >= from_ms and expected is not None:
                expected = target.moved(expected)
            assert value_at(after, track, at_ms) == expected, (track, at_ms)
    assert orders(after, target, from_ms, now_ms) is None, "said again there is nothing to move"


def test_without_versions_only_older_ones_are_meant() -> None:
    target = Target(Track.PLAN, "pro", 2)
    assert [target.moved(("pro", version))[1] for version in (1, 2, 3)] == [2, 2, 3]
    assert target.moved(("free", 1)) == ("free", 1)
    assert Target(Track.PLAN, "pro", 2, frozenset({3})).moved(("pro", 3)) == ("pro", 2), "back, where it is named"
