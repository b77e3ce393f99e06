"""Which small worlds are visited: those in which everything must hold, and one for every broken rule."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tests.model.rules import Broken
from tests.model.state import World

HOLDS = {
    "one lease, its window may end": World(leases=1, sizes=(2,), windows=True),
    "one lease, two crashes among groups on their way": World(
        limit=1, leases=1, sizes=(1,), crashes=2, filing=True, interleaved=True
    ),
    "one lease of two, groups on their way, rows of calls": World(leases=1, sizes=(2,), filing=True, interleaved=True),
    "one lease, watermark in steps, unreserved use": World(leases=1, sizes=(2,), partial_steps=True, unasked=True),
    "one lease, calls recorded twice": World(leases=1, sizes=(2,), repeats=True, lowering=False),
    "one lease, expiry, limbo and recall told apart": World(limit=1, leases=1, sizes=(1,), marks=True),
    "two leases, one crash": World(sizes=(2,), lowering=False),
    "two leases, a disk lost": World(limit=1, sizes=(1,), new_disks=1, lowering=False),
    "two agents, one crash each": World(agents=2, leases=1, sizes=(1,), partial_steps=True, lowering=False),
}
"""Every disk has one life: nothing is ever used beyond the limit."""

COPIED = {
    "a disk copied while it runs": World(limit=1, leases=1, sizes=(1,), copies=1, crashes=0),
    "a disk rolled back": World(limit=1, sizes=(1,), backups=1, crashes=0, lowering=False),
    "a disk rolled back, watermark in steps": World(
        leases=1, sizes=(2,), backups=1, crashes=0, partial_steps=True, lowering=False
    ),
}
"""A disk has two lives: the excess is bounded by what certain leases were granted (``must_hold``), and counted."""

HOLDS_IN_LARGE = {
    "one lease, two crashes, its window may end": World(leases=1, crashes=2, sizes=(2,), windows=True),
    "one lease, two crashes, a disk lost": World(leases=1, sizes=(2,), crashes=2, new_disks=1),
    "one lease of three, groups on their way, rows of calls": World(
        limit=3, leases=1, sizes=(3,), filing=True, interleaved=True
    ),
    "one lease of two, expiry, limbo and recall told apart": World(leases=1, sizes=(2,), marks=True),
    "two leases of one or two, one crash": World(),
    "two agents, rows of calls, groups on their way": World(
        agents=2, leases=1, sizes=(1,), filing=True, interleaved=True
    ),
}

COPIED_IN_LARGE = {
    "a disk copied while it runs, two leases": World(limit=1, sizes=(1,), copies=1, crashes=0, lowering=False),
    "a disk copied while it runs, watermark in steps": World(
        leases=1, sizes=(2,), copies=1, crashes=0, partial_steps=True, lowering=False
    ),
    "a disk copied while it runs, then a crash": World(limit=1, leases=1, sizes=(1,), copies=1),
    "a disk rolled back, then a crash": World(limit=1, sizes=(1,), backups=1, lowering=False),
}

COST_OF_A_COPY = World(limit=1, sizes=(1,), copies=1, crashes=0, lowering=False, strict=True)
COST_OF_A_ROLLBACK = World(limit=1, sizes=(1,), backups=1, crashes=0, lowering=False, strict=True)
"""What is excused in the worlds above, asked for: the shortest ways to it."""


class Ends(Enum):
    """What a broken rule leads to: more used than the limit; more charged than the limit, but not used; more lost to a
    copied disk than is excused; or nothing that is unsafe."""

    OVERSPENT = "overspend"
    BOOKS = "books beyond the limit"
    HELD = "a copy's bound is passed"
    NOTHING = "liveness only"


@dataclass(frozen=True)
class Case:
    """A world with a broken rule, what it must lead to, and why.

    ``is_slow``: more than a second or two until more is truly used than the limit.
    """

    world: World
    ends: Ends
    why: str = ""
    is_slow: bool = False


_ONE = World(limit=1, sizes=(1,), lowering=False)
_STILL = _ONE._replace(crashes=0)
_DEEP = World(limit=1, sizes=(1,), leases=1, crashes=2)

CASES: dict[Broken, Case] = {
    Broken.USED_BEFORE_JOURNAL: Case(_ONE, Ends.OVERSPENT, "R2"),
    Broken.FREED_BEFORE_JOURNAL: Case(_ONE._replace(filing=True), Ends.OVERSPENT, "R2"),
    Broken.ORPHANS_FORGOTTEN: Case(_ONE, Ends.OVERSPENT, "R2"),
    Broken.RETURN_BEFORE_JOURNAL: Case(World(sizes=(1, 2), partial_steps=True), Ends.OVERSPENT, "R4", is_slow=True),
    Broken.LAST_WORD_BEFORE_JOURNAL: Case(_ONE._replace(filing=True), Ends.OVERSPENT, "R4, R7"),
    Broken.CENTRAL_BEFORE_EVENT: Case(_ONE, Ends.OVERSPENT, "R7"),
    Broken.FORGOTTEN_BEFORE_ANSWER: Case(_ONE, Ends.OVERSPENT, "R7"),
    Broken.REPEAT_PAID_BY_ORPHAN: Case(_ONE._replace(repeats=True), Ends.OVERSPENT, "R6"),
    Broken.GRANT_BEFORE_COMMIT: Case(_STILL, Ends.OVERSPENT, "R3"),
    Broken.GROWS_IN_PLACE: Case(World(sizes=(1,)), Ends.OVERSPENT, "R5"),
    Broken.EXPIRY_RECLAIMS: Case(_STILL, Ends.OVERSPENT, "R11"),
    Broken.SHRUNK_BY_LENDER: Case(_STILL, Ends.OVERSPENT, "R4"),
    Broken.LAST_WORD_WINS: Case(
        _ONE._replace(lowering=True), Ends.BOOKS, "R6: a cap that rises again was lent again", is_slow=True
    ),
    Broken.SPLIT_COUNTED_TWICE: Case(World(sizes=(1, 2)), Ends.BOOKS, "R6: one use is charged twice", is_slow=True),
    Broken.NEW_DISK_RELEASES: Case(_STILL._replace(new_disks=1), Ends.OVERSPENT, "R10"),
    Broken.NO_JOURNAL_IDENTITY: Case(_STILL._replace(new_disks=1), Ends.OVERSPENT, "R8"),
    Broken.START_CLOSES_ALL: Case(_ONE, Ends.OVERSPENT, "R9"),
    Broken.NEWER_BOOT_CLOSED: Case(_ONE._replace(crashes=2), Ends.OVERSPENT, "R9"),
    Broken.NONCE_IGNORED: Case(_ONE._replace(copies=1), Ends.HELD, "R10"),
    Broken.LOST_LEASES_BELIEVED: Case(_STILL._replace(backups=1), Ends.HELD, "R10"),
    Broken.LATE_SNAPSHOT_CLOSES: Case(
        _DEEP,
        Ends.NOTHING,
        "R9: that only leases of earlier boots are closed suffices alone; both guards broken are a row above",
    ),
    Broken.BOOT_ORDER_IGNORED: Case(
        _DEEP,
        Ends.NOTHING,
        "R6: numbers only grow or only fall, so order only matters to the recall that a late word would answer",
    ),
    Broken.ASKED_AGAIN_GRANTED_TWICE: Case(
        _DEEP,
        Ends.NOTHING,
        "R3: the first lease stays charged and unused until the next start: stranded, not overspent",
    ),
    Broken.LATE_REPORTS_IGNORED: Case(
        _DEEP._replace(new_disks=1, crashes=1, leases=1),
        Ends.NOTHING,
        "R12: limbo stays charged although its holder spoke",
    ),
    Broken.LATE_NEWS_IGNORED: Case(
        _DEEP, Ends.NOTHING, "R12: with one life a last word is the last; a copied disk's use would never be posted"
    ),
}
