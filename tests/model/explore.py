"""Visits every reachable state of a small world, breadth first, so that the first violation found is a shortest one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.model import faults, holder, lender, lending, must_hold
from tests.model.state import Side, Step, World, first
from tests.model.tidy import tidy


@dataclass(frozen=True)
class Verdict:
    """What was found: ``wrong`` is empty when all states were visited and everything holds in each.

    Attributes:
        sides: how many different sides there were. complete: whether all states were visited.
        excess: how far use went beyond the limit at most. trace: the steps to what is wrong.
    """

    states: int
    sides: int
    complete: bool
    excess: int = 0
    wrong: str = ""
    trace: tuple[str, ...] = ()


@dataclass
class Sides:
    """Every side seen, each worked out once. Agents meet only at the allowance, so a state is one number for each."""

    world: World
    overspent_only: bool
    numbers: dict[Side, int] = field(default_factory=dict)
    known: list[Side] = field(default_factory=list)
    next: list[tuple[tuple[int, int], ...] | None] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    spent: list[int] = field(default_factory=list)
    charged: list[int] = field(default_factory=list)

    def number(self, side: Side) -> int:
        """The number of a side, given at first sight."""
        found = self.numbers.get(side)
        if found is None:
            found = self.numbers[side] = len(self.known)
            self.known.append(side)
            self.next.append(None)
            self.spent.append(sum(side.spent))
            self.charged.append(side.books.charged)
            self.wrong.append("" if self.overspent_only else must_hold.wrong_within(side))
        return found

    def after(self, number: int) -> tuple[tuple[int, int], ...]:
        """(side, what must be left of the allowance for it), for every step from here."""
        steps = self.next[number]
        if steps is None:
            side = self.known[number]
            found = {
                (self.number(tidy(self.world, step.side)), step.need)
                for step in all_steps(self.world, side)
                if step.side is not side
            }
            found.discard((number, 0))
            steps = self.next[number] = tuple(sorted(found))
        return steps


def all_steps(world: World, side: Side) -> Iterator[Step]:
    """Everything that may happen to a side, with its name."""
    yield from holder.steps(world, side)
    yield from lender.steps(world, side)
    yield from lending.steps(world, side)
    yield from faults.steps(world, side)


def explore(world: World, *, states_max: int = 50_000_000, overspent_only: bool = False) -> Verdict:
    """Visit everything, or stop at the first state in which something does not hold.

    Args:
        overspent_only: ask only whether more can truly be used than the limit, whatever breaks before.
    """
    sides = Sides(world, overspent_only)
    start = (sides.number(first(world)),) * world.agents
    before: dict[tuple[int, ...], tuple[int, ...] | None] = {start: None}
    level, excess = [start], 0
    while level:
        coming = []
        for state in level:
            for news in _next(world, sides, state):
                if news in before:
                    continue
                before[news] = state
                coming.append(news)
                excess = max(excess, sum(sides.spent[number] for number in news) - world.limit)
                if wrong := _wrong(world, sides, news):
                    trace = _trace(world, sides, before, news)
                    return Verdict(len(before), len(sides.known), False, excess, wrong, trace)
            if len(before) > states_max:
                return Verdict(len(before), len(sides.known), False, excess)
        level = coming
    return Verdict(len(before), len(sides.known), True, excess)


def _next(world: World, sides: Sides, state: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    left = world.limit - sum(sides.charged[number] for number in state)
    for at, number in enumerate(state):
        for news, need in sides.after(number):
            if need <= left:  # agents are alike: which is which does not matter
                yield (news,) if len(state) == 1 else tuple(sorted((*state[:at], news, *state[at + 1 :])))


def _wrong(world: World, sides: Sides, state: tuple[int, ...]) -> str:
    for number in state:
        if sides.wrong[number]:
            return sides.wrong[number]
    charged, spent = sum(sides.charged[number] for number in state), sum(sides.spent[number] for number in state)
    if max(charged, spent) <= world.limit:
        return ""
    together = must_hold.wrong_together(world, [sides.known[number] for number in state])
    return "" if sides.overspent_only and not together.startswith("used") else together


Before = dict[tuple[int, ...], "tuple[int, ...] | None"]


def _trace(world: World, sides: Sides, before: Before, last: tuple[int, ...]) -> tuple[str, ...]:
    """The way to a state, in words. The same agent keeps its place in the words, whatever the order of the numbers."""
    path = [last]
    while (earlier := before[path[-1]]) is not None:
        path.append(earlier)
    path.reverse()
    places = list(path[0])
    words = []
    for target in path[1:]:
        at, number, what = _one_step(world, sides, places, target)
        places[at] = number
        words.append(f"agent {'AB'[at]}: {what}" if world.agents > 1 else what)
    return tuple(words)


def _one_step(world: World, sides: Sides, places: list[int], target: tuple[int, ...]) -> tuple[int, int, str]:
    for at, number in enumerate(places):
        for step in all_steps(world, sides.known[number]):
            news = sides.number(tidy(world, step.side))
            if tuple(sorted((*places[:at], news, *places[at + 1 :]))) == target and news != number:
                return at, news, step.what
    raise AssertionError("a state was reached by no step")
