"""What a small world is made of: a side for every agent: its disks, the lender's rows, all messages.

Sides touch each other only through what is left of the allowance, so everything else is worked out side by side.
Quantities are units of the allowance; a call in flight holds one unit.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from tests.model.rules import Broken

T = TypeVar("T")


class World(NamedTuple):
    """How large the world is, and what may happen in it. ``broken``: the one rule that does not hold in it.

    Attributes:
        limit: units that all agents together may use. agents, leases: how many, and how many leases each may ever get.
        sizes: how much a grant may be.
        crashes: how often an agent dies and starts again from its disk.
        new_disks: how often its disk is lost with it. copies: how often its disk is copied while it runs.
        backups: how often a copy of its disk is put aside, to be started from after a crash.
        filing: calls in flight may get rows of their own in the journal (``agent.core.pending``: once they are old).
        interleaved: anything may happen between the gathering of a commit group and its being on disk.
        partial_steps: the watermark need not be raised as far as the cap.
        lowering: caps may fall by recall or return while the lease goes on. windows: a window may end.
        unasked: use is recorded that nobody had reserved. repeats: ... and that was recorded before, elsewhere.
        marks: expiry, limbo and recall are told apart; they move nothing, which has a test of its own.
        strict: what a copied disk may cost is not excused.
    """

    limit: int = 2
    agents: int = 1
    leases: int = 2
    sizes: tuple[int, ...] = (1, 2)
    crashes: int = 1
    new_disks: int = 0
    copies: int = 0
    backups: int = 0
    filing: bool = False
    interleaved: bool = False
    partial_steps: bool = False
    lowering: bool = True
    windows: bool = False
    unasked: bool = False
    repeats: bool = False
    marks: bool = False
    strict: bool = False
    broken: Broken = Broken.NONE


class Row(NamedTuple):
    """A lease as it stands in the journal (``agent.store.journal.LeaseRow``); it is what may be reported.

    ``filed``: units that rows of calls in flight hold. ``orphan``: as last worked out from the rest.
    ``repeated``: units charged by events whose calls had been recorded before.
    """

    lease: int
    cap: int
    watermark: int
    settled: int
    orphan: int
    filed: int
    closing: bool
    repeated: int


class Flight(NamedTuple):
    """A commit group on its way to the disk (``agent.core.pending.Group``), as far as this lease is concerned.

    ``ending``: ended calls whose rows it deletes. ``filing``: calls it makes rows for, still in flight;
    ``undone``: those of them that were released meanwhile.
    """

    row: Row
    ending: int
    filing: int
    undone: int


class Held(NamedTuple):
    """A lease in an agent's memory (``agent.core.budget.Lease``), and the calls that hold it.

    ``young``: calls without a row. ``filed``: calls with a row on disk; ``ghosts``: those of them whose callers said
    before a crash that they did not happen, which only their rows did not hear. ``ending``: released since the last
    group; their rows are still on disk.
    """

    lease: int
    cap: int
    watermark: int
    settled: int
    orphan: int
    young: int
    filed: int
    ghosts: int
    ending: int
    closing: bool
    repeated: int
    flight: Flight | None

    @property
    def in_flight(self) -> int:
        """``Lease.held``: what calls in flight hold."""
        return self.young + self.filed + (self.flight.filing if self.flight else 0)

    @property
    def used(self) -> int:
        """``Lease.used``."""
        return self.settled + self.in_flight + self.orphan

    @property
    def freeing(self) -> int:
        """Free in memory, while the disk still says that a call holds it."""
        flight = self.flight
        return self.ending + (flight.ending + flight.undone if flight else 0)


class Machine(NamedTuple):
    """One running start of an agent, and the disk under it. A crash and the start after it are one step: an agent that
    is down is one that does nothing and hears nothing."""

    journal: int
    boot: int
    nonce: int
    disk: tuple[Row, ...]
    memory: tuple[Held, ...]


class Loan(NamedTuple):
    """A lease in the lender's table; ``granted`` and what follows are ``lease_life.Life``.

    ``heard``: reported at least once by its holder (``leases.Row.journaled``). ``repaid``: repeats given back.
    ``copied``: it is on a disk that came to life twice, which the lender cannot know.
    """

    journal: int
    boot: int
    granted: int
    cap: int
    settled: int
    unreported: int
    status: str
    keep: int
    heard: bool = False
    repaid: int = 0
    copied: bool = False


class Report(NamedTuple):
    """What a start says of one lease (``LeaseReport``), later than first; ``repeated``: what its events tell."""

    journal: int
    boot: int
    nonce: int
    lease: int
    cap: int
    settled: int
    unreported: int
    closed: bool
    repeated: int


class Snapshot(NamedTuple):
    """What a start says first: everything in its journal."""

    journal: int
    boot: int
    nonce: int
    reports: tuple[Report, ...]


class Starts(NamedTuple):
    """What the lender knows of a journal: the nonce of every start it heard of, and whether it is quarantined.

    ``lives``: how many disks have carried it, which the lender cannot know.
    """

    known: tuple[tuple[int, int], ...] = ()
    quarantined: bool = False
    lives: int = 1


class Books(NamedTuple):
    """The lender's sums for this side, as the movements made them."""

    posted: int = 0
    outstanding: int = 0
    direct: int = 0

    @property
    def charged(self) -> int:
        """What this side takes of the allowance."""
        return self.posted + self.outstanding + self.direct


class Left(NamedTuple):
    """Faults yet to come."""

    crashes: int
    new_disks: int
    copies: int
    backups: int


class Side(NamedTuple):
    """One agent and all that the lender and the network know of it.

    Attributes:
        machines: one, or two where a disk was copied. backup: a disk that was put aside.
        starts: by journal. loans: by lease, in the order of granting; a lease's number is its place.
        said: every message ever sent; each may arrive any number of times, in any order, or never.
        spent: by lease, how many units callers were allowed to use, less those they gave back unused.
        nonces: how many starts there were. wrong: what a step did that no step may do, or nothing.
    """

    machines: tuple[Machine, ...]
    backup: Machine | None
    starts: tuple[Starts, ...]
    loans: tuple[Loan, ...]
    said: frozenset[Report | Snapshot]
    spent: tuple[int, ...]
    books: Books
    nonces: int
    left: Left
    wrong: str = ""


class Step(NamedTuple):
    """One thing that may happen to a side. ``need``: how much of the allowance must be left for it."""

    what: str
    side: Side
    need: int = 0


def first(world: World) -> Side:
    """A new agent: an empty journal, nothing said but that it is there."""
    machine = Machine(0, 1, 1, (), ())
    said: frozenset[Report | Snapshot] = frozenset({Snapshot(0, 1, 1, ())})
    left = Left(world.crashes, world.new_disks, world.copies, world.backups)
    return Side((machine,), None, (Starts(),), (), said, (), Books(), 1, left)


def put(items: tuple[T, ...], at: int, item: T) -> tuple[T, ...]:
    """The tuple with another item in this place."""
    return (*items[:at], item, *items[at + 1 :])
