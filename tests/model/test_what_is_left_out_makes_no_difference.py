"""What the model leaves out or forgets to be small changes nothing that is charged or used."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from control_plane.core.lease_life import Heard, Life, Movement, Status, hear, recall
from tests.model.explore import all_steps
from tests.model.state import Side, World, first
from tests.model.tidy import tidy

ALIVE = (Status.OPEN, Status.RECALLED, Status.EXPIRED, Status.LIMBO)
SAID = [
    Heard(cap, settled, 0, unreported, closed, stale)
    for cap, settled, unreported, closed, stale in product(range(3), range(3), range(3), (False, True), (False, True))
]
LIVES = [
    Life(2, cap, settled, 0, unreported, Status.OPEN, 0)
    for cap, settled, unreported in product(range(3), range(3), range(3))
]


def charged(after: tuple[Life, Movement]) -> tuple[Movement, int, int, int, bool]:
    life, movement = after
    return movement, life.cap, life.settled, life.unreported, life.status is Status.CLOSED


@pytest.mark.parametrize("status", ALIVE)
def test_marks_change_nothing_that_is_charged(status: Status) -> None:
    for life, said, keep in product(LIVES, SAID, range(2)):
        marked = replace(life, status=status, keep=keep)
        assert charged(hear(marked, said)) == charged(hear(life, said))
        assert charged((recall(marked, keep), Movement())) == charged((life, Movement()))


def test_calls_in_flight_are_told_but_never_charged() -> None:
    for life, said, before, now in product(LIVES, SAID, range(2), range(2)):
        assert charged(hear(replace(life, in_flight=before), replace(said, in_flight=now))) == charged(hear(life, said))


@pytest.mark.parametrize(
    "world",
    [
        World(limit=1, leases=2, sizes=(1,), lowering=False),
        World(limit=2, leases=1, sizes=(2,)),
        World(limit=1, leases=1, sizes=(1,), repeats=True, windows=True),
        World(limit=1, leases=1, sizes=(1,), copies=1, crashes=0),
        World(limit=1, leases=1, sizes=(1,), backups=1, crashes=0),
    ],
)
def test_tidying_loses_no_outcome(world: World) -> None:
    assert outcomes(world, tidied=True) == outcomes(world, tidied=False)


def outcomes(world: World, *, tidied: bool) -> set[object]:
    """Everything that can come of a world: the books, and what was used of which lease, and what is left to be used."""
    seen, coming = {first(world)}, [first(world)]
    while coming:
        side = coming.pop()
        left = world.limit - side.books.charged
        for step in all_steps(world, side):
            news = tidy(world, step.side) if tidied else step.side
            if step.need <= left and news not in seen:
                seen.add(news)
                coming.append(news)
    return {outcome(side) for side in seen}


def outcome(side: Side) -> object:
    lives = tuple((starts.lives, starts.quarantined) for starts in side.starts)
    return side.books, side.spent, side.machines, side.left, lives, tuple(loan.cap for loan in side.loans)
