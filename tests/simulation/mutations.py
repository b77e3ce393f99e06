"""Rules broken on purpose, one at a time: each must be caught by some checker within a few seeds.

A mutation replaces functions of the product inside one world. R1 to R12 are the rules of the design notes on leases
(2.3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

from tests.simulation import broken_agents, broken_planes
from tests.simulation.broken_agents import Patch


@dataclass(frozen=True)
class Mutation:
    """One broken rule.

    Attributes:
        rule: of the design notes. text: what is done wrong.
        world: of the suite, in which it was caught soonest: looked at first, and all others if it is not caught there.
    """

    name: str
    rule: str
    text: str
    patches: Callable[[], list[Patch]]
    world: int = 0

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """The product with this rule broken."""
        with contextlib.ExitStack() as undo:
            for target, name, wrong in self.patches():
                undo.enter_context(mock.patch.object(target, name, wrong))
            yield


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "use before debit",
        "R1",
        "calls go to the provider before they are held on a lease",
        broken_agents.use_before_debit,
    ),
    Mutation(
        "use before journal",
        "R2",
        "a lease is spent before its row is on disk",
        broken_agents.use_before_journal,
        world=8,
    ),
    Mutation(
        "raise before commit",
        "R2",
        "watermarks rise when they are written, not when they are on disk",
        broken_agents.raise_before_commit,
    ),
    Mutation("spend up to the cap", "R2", "the journal's watermark is not looked at", broken_agents.cap_is_watermark),
    Mutation(
        "orphans forgotten",
        "R2",
        "what a crash left unaccounted for is free after the restart",
        broken_agents.orphans_forgotten,
    ),
    Mutation(
        "freed before durable",
        "R2",
        "what a journaled call frees is used before its end is on disk",
        broken_agents.freed_before_durable,
        world=8,
    ),
    Mutation(
        "grant before commit",
        "R3",
        "an answer leaves although its transaction was undone",
        broken_planes.grant_before_commit,
    ),
    Mutation(
        "shrink before acknowledged",
        "R4",
        "a recall lowers the cap before the holder has",
        broken_planes.shrink_before_acknowledged,
    ),
    Mutation(
        "return before durable",
        "R4",
        "the holder says that it gave back what its disk still has",
        broken_agents.return_before_durable,
        world=6,
    ),
    Mutation(
        "grow in place", "R5", "a lease is topped up instead of another one lent", broken_agents.grow_in_place, world=3
    ),
    Mutation(
        "last write wins", "R6", "counters are replaced, not merged by maximum", broken_planes.last_write_wins, world=5
    ),
    Mutation(
        "forget before acknowledged",
        "R7",
        "a closed lease leaves the journal before its end was heard",
        broken_agents.forget_before_acknowledged,
    ),
    Mutation(
        "no journal identity", "R8", "an agent is known by name and a counter alone", broken_agents.no_journal_identity
    ),
    Mutation("a start closes all", "R9", "a start closes what it lists, too", broken_planes.start_closes_all),
    Mutation("boot order ignored", "R9", "an old start closes what newer ones hold", broken_planes.boot_order_ignored),
    Mutation("new disk releases", "R10", "a new journal frees what the old one held", broken_planes.new_disk_releases),
    Mutation("copies accepted", "R10", "two lives of one journal are served", broken_planes.copies_accepted),
    Mutation(
        "expiry reclaims", "R11", "a silent lease is closed at what was last heard", broken_planes.expiry_reclaims
    ),
    Mutation(
        "late reports ignored", "R12", "nobody listens to a lease that was given up", broken_planes.late_reports_ignored
    ),
    Mutation("a subset is held", "all or none", "a call takes of one of its limits", broken_agents.subset),
    Mutation("one too many lent", "never more than is left", "the lender is off by one", broken_planes.too_much_lent),
    Mutation("gaps accepted", "dense events", "events after a gap are taken in", broken_planes.gaps_accepted),
    Mutation(
        "marks not looked at", "events once", "a repeated batch is taken for new", broken_planes.duplicates_counted
    ),
)
