"""Forgets what can make no difference any longer, so that states which only differ in it are visited once.

1. A lease is over when it is closed, no memory and no disk has it, and no message about it could post more. Nobody can
   use it or speak of it again: its messages go, and of the lease only what was posted and what was used remains.
2. A report says nothing new when the lender knows at least its ``settled`` and at most its ``cap``, and it neither
   closes the lease nor moves it to a later start. ``lease_life.hear`` never takes either number back, so it never will;
   and what it says last, ``unreported``, is what the lender knows: nothing, and nothing else has been or will be said
   by that start (orphans are made by the next one), or it is stale and not listened to. Whose it is can still be
   learned from the snapshot that the same start sent first, which stays.

In a world with a broken rule 2 might hide what the broken rule does, and is left out.
"""

from __future__ import annotations

from tests.model.lender import CLOSED
from tests.model.state import Loan, Report, Side, Snapshot, World, put


def tidy(world: World, side: Side) -> Side:
    """The side without what is over, and without reports that say nothing new."""
    side = _without_old_news(side) if not world.broken and not world.marks else side
    over = {
        lease
        for lease, loan in enumerate(side.loans)
        if loan.status == CLOSED and loan.boot and not _is_kept(side, lease) and not _may_post_more(side, lease, loan)
    }
    if not over:
        return side
    loans = side.loans
    for lease in over:
        loans = put(loans, lease, loans[lease]._replace(boot=0, settled=loans[lease].cap, unreported=0))
    said = frozenset(_without(message, over) for message in side.said if not _is_about(message, over))
    return side._replace(loans=loans, said=said)


def _without_old_news(side: Side) -> Side:
    old = [message for message in side.said if isinstance(message, Report) and _is_old_news(side, message)]
    return side._replace(said=side.said.difference(old)) if old else side


def _is_old_news(side: Side, report: Report) -> bool:
    loan = side.loans[report.lease]
    if report.closed or report.settled > loan.settled or report.repeated > loan.repaid or loan.status == CLOSED:
        return False
    if report.boot < loan.boot:
        return True
    same = report.boot == loan.boot and report.cap >= loan.cap and report.unreported == loan.unreported == 0
    return same and loan.heard


def _is_kept(side: Side, lease: int) -> bool:
    for machine in (*side.machines, *([side.backup] if side.backup else ())):
        if any(row.lease == lease for row in machine.disk) or any(held.lease == lease for held in machine.memory):
            return True
    return False


def _may_post_more(side: Side, lease: int, loan: Loan) -> bool:
    about = [report for message in side.said for report in _reports(message) if report.lease == lease]
    settled = max([loan.settled, *(report.settled for report in about)])
    used = max([settled, *(settled + report.unreported for report in about)])
    return min(used, max(loan.granted, settled)) > loan.cap or any(report.repeated > loan.repaid for report in about)


def _reports(message: Report | Snapshot) -> tuple[Report, ...]:
    return message.reports if isinstance(message, Snapshot) else (message,)


def _is_about(message: Report | Snapshot, over: set[int]) -> bool:
    return isinstance(message, Report) and message.lease in over


def _without(message: Report | Snapshot, over: set[int]) -> Report | Snapshot:
    if isinstance(message, Snapshot) and any(report.lease in over for report in message.reports):
        return message._replace(reports=tuple(report for report in message.reports if report.lease not in over))
    return message
