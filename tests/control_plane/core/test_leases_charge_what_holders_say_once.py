"""What one holder says of a lease is charged once, in whatever order and however often its reports arrive."""

from __future__ import annotations

from itertools import permutations

import pytest

from control_plane.core.lease_life import Heard, Life, Status, hear

LENT = Life(granted=2, cap=2, settled=0, in_flight=0, unreported=0, status=Status.OPEN, keep=0)

ORPHANED = Heard(cap=1, settled=0, in_flight=0, unreported=1, closed=False)
ORPHANED_AT_LAST = Heard(cap=1, settled=0, in_flight=0, unreported=1, closed=True)
SETTLED_LATE = Heard(cap=1, settled=1, in_flight=0, unreported=0, closed=False)
SETTLED_LATE_AT_LAST = Heard(cap=1, settled=1, in_flight=0, unreported=0, closed=True)


@pytest.mark.parametrize("order", list(permutations([ORPHANED, ORPHANED_AT_LAST, SETTLED_LATE, SETTLED_LATE_AT_LAST])))
def test_an_orphan_that_was_settled_late_is_charged_once_in_every_order_of_the_reports(
    order: tuple[Heard, ...],
) -> None:
    life, posted, freed = LENT, 0, 0
    for heard in (*order, *order):
        life, movement = hear(life, heard)
        posted += movement.posted
        freed += movement.returned + movement.released
    assert (life.status, life.cap, life.settled) == (Status.CLOSED, 1, 1)
    assert (posted, freed) == (1, LENT.cap)


def test_what_is_unreported_beyond_what_was_settled_is_still_charged() -> None:
    life, _ = hear(LENT, Heard(cap=2, settled=1, in_flight=0, unreported=0, closed=False))
    life, movement = hear(life, Heard(cap=2, settled=1, in_flight=0, unreported=1, closed=True))
    assert (life.cap, movement.posted) == (2, 2)


CRASHED = Heard(cap=9, settled=4, in_flight=0, unreported=5, closed=True)
ONE_SETTLED_LATE = Heard(cap=9, settled=6, in_flight=0, unreported=3, closed=True)
ALL_SETTLED_LATE = Heard(cap=9, settled=9, in_flight=0, unreported=0, closed=True)


@pytest.mark.parametrize("order", list(permutations([CRASHED, ONE_SETTLED_LATE, ALL_SETTLED_LATE])))
def test_what_was_charged_as_perhaps_used_and_is_settled_late_is_no_longer_unreported(order: tuple[Heard, ...]) -> None:
    life = Life(granted=9, cap=9, settled=0, in_flight=0, unreported=0, status=Status.OPEN, keep=0)
    for heard in order:
        life, _ = hear(life, heard)
        assert life.settled + life.unreported == life.cap == 9
