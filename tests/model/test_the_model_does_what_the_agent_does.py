"""Random walks of the real agent and the model's half side by side: every step of the agent is one of the model's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

import pytest

from tests.model import faults, holder
from tests.model.explore import all_steps
from tests.model.product import Product
from tests.model.rules import Broken
from tests.model.state import Side, World, first

UNITS = 5
WORLD = World(
    limit=UNITS, leases=1, sizes=(UNITS,), crashes=9, filing=True, interleaved=True, partial_steps=True, unasked=True
)
STEPS = 60
Labels = tuple[str, ...]
DEATH: Labels = ("start ",)


def view_of_the_model(world: World, side: Side) -> object:
    """What can be compared: memory, disk, what may be used, and what would be reported."""
    machine = side.machines[0]
    if not machine.memory:
        return None
    held = machine.memory[0]
    memory = (held.cap, held.watermark, held.settled, held.orphan, held.in_flight, held.freeing, held.closing)
    usable = holder.usable(world, held)
    if not machine.disk:
        return memory, usable, None, None
    row = machine.disk[0]
    report = holder.report_of(world, machine, row, held)
    said = (report.cap, report.settled, report.unreported, report.closed)
    return memory, usable, (row.cap, row.watermark, row.settled, row.closing, row.filed), said


def view_of_the_agent(product: Product) -> object:
    if "lease" not in product.books.leases:
        return None
    lease = product.lease
    memory = (lease.cap, lease.watermark, lease.settled, lease.orphan, lease.held, lease.freeing, lease.closing)
    usable = product.usable()
    if not lease.written:
        return memory, usable, None, None
    row, report = product.disk.leases["lease"], lease.report()
    disk = (row.cap, row.watermark, row.settled, bool(row.closing), len(product.disk.calls))
    return memory, usable, disk, (report.cap, report.settled, report.unreported, report.closed)


@dataclass(frozen=True)
class Act:
    """One thing that the agent could do now: how the model calls it, and how often it is chosen."""

    labels: Labels
    do: Callable[[], object]
    weight: int = 8


def what_may_be_done(product: Product, random: Random) -> Iterator[Act]:
    yield from on_calls(product)
    lease = product.lease
    if lease.orphan or (lease.free > 0 and not lease.closing):
        yield Act(("a call from before", "use that nobody"), product.settle_unknown, 2)
    if not lease.closing:
        yield Act(("the lease is given up",), product.give_up, 1)
        for keep in range(lease.free):
            yield Act(("the cap is lowered", "the lease is given up"), partial(product.lower, keep), 1)
    if product.group is None:
        yield Act(("a group is gathered",), partial(product.gather, product.now_ms - random.randrange(-1, 3)), 4)
    else:
        yield Act(("the group is on disk",), product.land)
    yield Act(DEATH, partial(product.crash, written=random.random() < 0.5), 1)


def on_calls(product: Product) -> Iterator[Act]:
    if product.usable() > 0:
        yield Act(("a call is allowed",), product.allow, 20)
    for name in product.calls(filed=False):
        yield Act(("a call is settled",), partial(product.settle, name), 2)
        yield Act(("a call is released",), partial(product.release, name), 2)
    for name in product.calls(filed=True):
        release = partial(product.release, name)
        if name in product.undone:
            yield Act(("a call that was released before",), release)
        else:
            yield Act(
                ("a call with a row is s", "a call whose row is being written is s"), partial(product.settle, name)
            )
            yield Act(("a call with a row is r", "a call whose row is being written is r"), release, 20)


def begin(world: World) -> Side:
    """A side whose agent has just been granted all there is."""
    side = first(world)
    for label in ("the snapshot", "lease 0"):
        side = next(
            step.side
            for step in all_steps(world, side)
            if step.what.startswith(label) and not step.what.endswith("lost")
        )
    return side


def walk(world: World, seed: int) -> tuple[list[str], bool]:
    """Walk both, and say what was done and whether the model could follow to the end."""
    random, product, sides = Random(seed), Product(UNITS), {begin(world)}
    done: list[str] = []
    while len(done) < STEPS and product.boot <= world.crashes:
        seen = view_of_the_agent(product)
        if {view_of_the_model(world, side) for side in sides} != {seen}:
            return done, False
        if seen is None:
            break  # it died before its first lease was on disk
        acts = list(what_may_be_done(product, random))
        act = random.choices(acts, [act.weight for act in acts])[0]
        done.append(act.labels[0])
        act.do()
        seen = view_of_the_agent(product)
        sides = {
            step.side
            for side in sides
            for step in (faults.steps if act.labels == DEATH else all_steps)(world, side)
            if step.what.startswith(act.labels) and view_of_the_model(world, step.side) == seen
        }
    return done, bool(sides)


@pytest.mark.parametrize("seed", range(150))
def test_every_step_of_the_agent_is_a_step_of_the_model(seed: int) -> None:
    done, followed = walk(WORLD, seed)
    assert followed, done


def test_the_walks_try_everything() -> None:
    tried = {what for seed in range(150) for what in walk(WORLD, seed)[0]}
    assert len(tried) == 12, tried


@pytest.mark.parametrize(
    "broken",
    [
        Broken.USED_BEFORE_JOURNAL,
        Broken.FREED_BEFORE_JOURNAL,
        Broken.ORPHANS_FORGOTTEN,
        Broken.RETURN_BEFORE_JOURNAL,
        Broken.LAST_WORD_BEFORE_JOURNAL,
    ],
)
def test_a_model_with_another_rule_is_told_from_the_agent(broken: Broken) -> None:
    world = WORLD._replace(broken=broken)
    assert not all(walk(world, seed)[1] for seed in range(60))
