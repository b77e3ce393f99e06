"""What must hold in every state of every world: the lines of DESIGN.md section 3, and what a copy can cost.

For a disk with one life:
    chain    truly used <= journal watermark <= cap on disk <= charged             every lease that is not closed
    closed   truly used <= posted                                                  every closed lease
For the allowance:
    pool     sum posted(closed) + sum charged(not closed) + direct debits <= limit, and the sums have not drifted
    used     sum truly used <= limit
    trust    its journal is never quarantined

A disk that was copied, or rolled back, has several lives. Nobody can tell them apart before the second one speaks, so:
    copies   at most (lives - 1) x granted is used beyond what is charged for a lease which was on the disk that came to
             life again, or which its holder had not once reported; of every other lease nothing is
    held     once the lender has heard two starts under one boot, or a start that lacks what its journal held, the
             journal gets no more leases and none of its leases is released
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.model.lender import CLOSED
from tests.model.state import Loan, Machine, Side, World


def wrong_within(side: Side) -> str:
    """What does not hold on this side, or nothing."""
    return side.wrong or _trust(side) or _drift(side) or _used(side) or _leases(side)


def wrong_together(world: World, sides: Iterable[Side]) -> str:
    """What does not hold of the allowance, or nothing."""
    charged = spent = excused = 0
    for side in sides:
        charged += side.books.charged
        spent += sum(side.spent)
        excused += 0 if world.strict else excused_on(side)
    if spent > world.limit + excused:
        return f"used: {spent} units are used of {world.limit}"
    if charged > world.limit + excused:
        return f"pool: {charged} units are charged or lent of {world.limit}"
    return ""


def excused_on(side: Side) -> int:
    """What lives of copied disks may use beyond what is charged; nothing where every disk has one life."""
    return sum(_excused(side, loan) for loan in side.loans)


def _excused(side: Side, loan: Loan) -> int:
    return (side.starts[loan.journal].lives - 1) * loan.granted if loan.copied or not loan.heard else 0


def _trust(side: Side) -> str:
    if any(starts.quarantined and starts.lives == 1 for starts in side.starts):
        return "trust: a disk with one life is quarantined"
    return ""


def _drift(side: Side) -> str:
    posted = sum(loan.cap for loan in side.loans if loan.status == CLOSED)
    outstanding = sum(loan.cap for loan in side.loans if loan.status != CLOSED)
    if (posted, outstanding) != side.books[:2]:
        return f"pool: the books say {side.books[:2]}, the leases {(posted, outstanding)}"
    return ""


def _used(side: Side) -> str:
    spent, charged = sum(side.spent), side.books.charged
    if spent > charged + excused_on(side):
        return f"closed: {spent} units are used, and only {charged} charged"
    return ""


def _leases(side: Side) -> str:
    for lease, (loan, spent) in enumerate(zip(side.loans, side.spent, strict=True)):
        lives = side.starts[loan.journal].lives
        if spent > loan.cap + _excused(side, loan):
            line = "closed" if loan.status == CLOSED else "chain"
            return f"{line}: {spent} units of lease {lease} are used, and only {loan.cap} charged"
        if lives == 1 and loan.status != CLOSED:
            for machine in side.machines:
                if broken := _chain(machine, lease, loan, spent):
                    return broken
    return ""


def _chain(machine: Machine, lease: int, loan: Loan, spent: int) -> str:
    if machine.journal != loan.journal:
        return ""
    row = next((row for row in machine.disk if row.lease == lease), None)
    held = next((held for held in machine.memory if held.lease == lease), None)
    watermark, cap = (row.watermark, row.cap) if row else (0, held.cap if held else 0)
    if not spent <= watermark <= cap <= loan.cap:
        return f"chain: lease {lease}: used {spent}, watermark {watermark}, cap {cap}, charged {loan.cap}"
    if held and held.cap > cap:
        return f"chain: lease {lease}: the cap in memory is {held.cap}, that on disk {cap}"
    return ""
