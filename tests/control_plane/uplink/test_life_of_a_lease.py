"""One lease, told of in any order, twice and late: it ends the same, and charges at least what was used."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.lease_life import Heard, Life, Movement, Status, close, hear, recall, write_off

LENT = Life(granted=100, cap=100, settled=0, in_flight=0, unreported=0, status=Status.OPEN, keep=0)


@st.composite
def stories(draw: st.DrawFn) -> list[Heard]:
    """What a holder says in turn: used and given back, all of it monotone, closed at the end."""
    settled, cap, told = 0, 100, []
    for _ in range(draw(st.integers(1, 8))):
        settled += draw(st.integers(0, cap - settled))
        cap = draw(st.integers(settled, cap))
        told.append(Heard(cap, settled, draw(st.integers(0, cap - settled)), 0, closed=False))
    return [*told, Heard(cap, settled, 0, 0, closed=True)]


def tell(told: list[Heard]) -> tuple[Life, Movement]:
    life, moved = LENT, Movement()
    for heard in told:
        life, one = hear(life, heard)
        moved = Movement(
            moved.returned + one.returned, moved.released + one.released, moved.posted + one.posted, one.cause
        )
        outstanding = 0 if life.status is Status.CLOSED else life.cap
        assert outstanding == 100 - moved.returned - moved.released
        assert life.cap <= life.granted
    return life, moved


@given(stories(), st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(told: list[Heard], random: object) -> None:
    expected = tell(told)[1].posted
    mixed = [*told, *told]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    life, moved = tell(mixed)
    assert life.status is Status.CLOSED
    assert moved.posted == expected == told[-1].settled == life.cap


@given(stories(), st.integers(0, 100))
def test_silence_and_recall_free_nothing(told: list[Heard], keep: int) -> None:
    life, _ = tell(told[:-1])
    assert recall(life, keep).cap == life.cap
    done, moved = write_off(life, "window_end")
    assert moved == Movement(released=life.cap, posted=life.cap, cause="window_end")
    assert done.cap >= life.settled


def test_late_news_is_charged_even_beyond_the_limit() -> None:
    closed, moved = close(replace(LENT, settled=10), "settled")
    assert (moved.released, moved.posted) == (100, 10)
    late, more = hear(closed, Heard(100, 25, 0, 0, closed=False))
    assert more == Movement(posted=15, cause="late")
    assert hear(late, Heard(100, 25, 0, 0, closed=False))[1] == Movement()


def test_what_may_have_been_used_is_charged_at_the_end() -> None:
    life, moved = hear(LENT, Heard(100, 10, 0, 30, closed=True))
    assert moved == Movement(released=100, posted=40, cause="settled")
    assert life.cap == 40


def test_an_earlier_start_can_no_longer_close_a_lease() -> None:
    life, moved = hear(LENT, Heard(60, 10, 5, 0, closed=True, stale=True))
    assert life == replace(LENT, settled=10)
    assert moved == Movement()


def test_a_recalled_lease_is_open_again_when_its_holder_has_answered() -> None:
    wanted = recall(LENT, 20)
    still, _ = hear(wanted, Heard(100, 10, 0, 0, closed=False))
    assert still.status is Status.RECALLED
    answered, moved = hear(still, Heard(30, 10, 0, 0, closed=False))
    assert (answered.status, answered.keep, moved.returned) == (Status.OPEN, 0, 70)


def test_a_silent_lease_is_open_again_when_its_holder_speaks() -> None:
    for status in (Status.EXPIRED, Status.LIMBO):
        assert hear(replace(LENT, status=status), Heard(100, 0, 0, 0, closed=False))[0].status is Status.OPEN
