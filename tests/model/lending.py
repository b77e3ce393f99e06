"""The control plane's half, lending: grants, marks, recalls, ends of windows, by the product's own pure functions.

Around them stands what ``control_plane.operations`` does for one allowance: ``grant_leases`` and ``reclaim_leases``.
"""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.core import lease_life
from control_plane.core.incarnations import Standing
from control_plane.core.lease_life import Heard, Movement, Status
from tests.model.lender import CLOSED, closed, life_of, move, speaker_of, start_words
from tests.model.rules import Broken
from tests.model.state import Held, Loan, Machine, Side, Step, World, put


def steps(world: World, side: Side) -> Iterator[Step]:
    """Everything that the lender may grant, or do unasked."""
    for machine in side.machines:
        yield from lend(world, side, machine)
    for lease, loan in enumerate(side.loans):
        if loan.status != CLOSED:
            yield from by_itself(world, side, lease, loan)


def lend(world: World, side: Side, machine: Machine) -> Iterator[Step]:
    """An ask arrives, of any start that may still be answered: nothing that it said is needed to ask."""
    starts = side.starts[machine.journal]
    if starts.quarantined and world.broken is not Broken.NONCE_IGNORED:
        return
    speaker = speaker_of(starts.known, machine.boot, machine.nonce, False)
    copied = speaker is Standing.COPIED and world.broken is Broken.NONCE_IGNORED
    if speaker is not Standing.CURRENT and not copied:
        return
    if len(side.loans) < world.leases:
        for size in world.sizes:
            yield from _first_time(world, side, machine, size)
    for lease, loan in enumerate(side.loans):
        here = loan.journal == machine.journal and loan.boot == machine.boot and loan.status != CLOSED
        twice = world.broken is Broken.ASKED_AGAIN_GRANTED_TWICE
        if here and not twice and all(held.lease != lease for held in machine.memory):
            open_again = side._replace(loans=put(side.loans, lease, loan._replace(status=Status.OPEN.value, keep=0)))
            again = _adopt(open_again if loan.status != Status.RECALLED else side, machine, lease, loan.cap)
            yield Step(f"an ask comes again and is answered: lease {lease} of {loan.cap}", again)
    if world.broken is Broken.GROWS_IN_PLACE:
        yield from _grow(world, side, machine)


def _first_time(world: World, side: Side, machine: Machine, size: int) -> Iterator[Step]:
    lease = len(side.loans)
    loan = Loan(machine.journal, machine.boot, size, size, 0, 0, Status.OPEN.value, 0)
    if world.broken is Broken.GRANT_BEFORE_COMMIT:
        loan = loan._replace(granted=0, cap=0)
    books = side.books._replace(outstanding=side.books.outstanding + loan.cap)
    starts = side.starts[machine.journal]
    wrong = "held: a journal that two disks carry gets a lease" if starts.quarantined else ""
    lent = side._replace(loans=(*side.loans, loan), spent=(*side.spent, 0), books=books, wrong=wrong)
    what = f"lease {lease} of {size} is granted to {start_words(machine)}"
    yield Step(f"{what}; the answer is lost", lent, size)
    yield Step(what, _adopt(lent, machine, lease, size), size)


def _adopt(side: Side, machine: Machine, lease: int, amount: int) -> Side:
    """``adopt_sync._granted``."""
    held = Held(lease, amount, 0, 0, 0, 0, 0, 0, 0, False, 0, None)
    at = side.machines.index(machine)
    return side._replace(machines=put(side.machines, at, machine._replace(memory=(*machine.memory, held))))


def _grow(world: World, side: Side, machine: Machine) -> Iterator[Step]:
    at = side.machines.index(machine)
    for place, held in enumerate(machine.memory):
        loan = side.loans[held.lease]
        if loan.status != CLOSED and loan.journal == machine.journal:
            books = side.books._replace(outstanding=side.books.outstanding + 1)
            grown = loan._replace(granted=loan.granted + 1, cap=loan.cap + 1)
            memory = put(machine.memory, place, held._replace(cap=held.cap + 1))
            machines = put(side.machines, at, machine._replace(memory=memory))
            after = side._replace(loans=put(side.loans, held.lease, grown), books=books, machines=machines)
            yield Step(f"lease {held.lease} grows by 1", after, 1)


def by_itself(world: World, side: Side, lease: int, loan: Loan) -> Iterator[Step]:
    """What the lender does unasked: marks, recalls, and the end of a window."""
    life = life_of(loan)
    if world.windows:
        after = move(side, lease, loan, *lease_life.write_off(life, "window_end"))
        yield Step(f"lease {lease} is written off at the end of its window", after)
    if world.marks:
        mark = Status.LIMBO if life.status is Status.EXPIRED else Status.EXPIRED
        yield Step(f"lease {lease} is {mark}", side._replace(loans=put(side.loans, lease, loan._replace(status=mark))))
        for keep in range(life.rest):
            back = lease_life.recall(life, keep)
            yield Step(f"lease {lease} is recalled to {keep}", move(side, lease, loan, back, Movement()))
    if world.broken is Broken.EXPIRY_RECLAIMS:
        yield Step(f"lease {lease} expires: its rest is lent again", move(side, lease, loan, *closed(life, "expired")))
    heard = loan.settled + loan.unreported
    if world.broken is Broken.SHRUNK_BY_LENDER and heard < loan.cap:
        life, movement = lease_life.hear(life, Heard(heard, loan.settled, 0, loan.unreported, closed=False))
        yield Step(
            f"lease {lease} is recalled, and its rest lent again at once", move(side, lease, loan, life, movement)
        )
