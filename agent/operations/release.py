"""The call did not happen: everything that it held is free again."""

from __future__ import annotations

from agent.core.books import Books
from agent.core.reservations import Ended
from agent.operations.enter_event import AfterCommit, charge_lines
from agent.operations.park import withdraw
from agent.operations.settle import forget_reservation
from protocol.local_messages import ErrorReply, Problem, Recorded, Release


def release(books: Books, request: Release) -> Recorded | AfterCommit | ErrorReply:
    """Give back all that is held. A repeat changes nothing."""
    held = books.reservations.get(request.reservation)
    if held is None:
        ended = books.ended.get(request.reservation)
        if ended is None and books.parked and withdraw(books, request.reservation):
            return Recorded()
        if ended is None:
            text = f"no reservation {request.reservation!r} is held here; there is nothing to release"
            return ErrorReply(error=Problem("reservation_not_found", text, "reservation"))
        if ended.event is not None:
            text = f"reservation {request.reservation!r} was settled; settle again with amounts of 0 to correct it"
            return ErrorReply(error=Problem("reservation_ended", text, "reservation"))
        return Recorded(duplicate=True) if ended.durable else _when_on_disk(books, ended, Recorded(duplicate=True))
    charge_lines(books, held, {})
    forget_reservation(books, held)
    ended = Ended(None, None, held.call)
    books.ended.put(held.id, ended)
    books.counters.released += 1
    return _when_on_disk(books, ended, Recorded())


def _when_on_disk(books: Books, ended: Ended, reply: Recorded) -> AfterCommit:
    def note(on_disk: bool) -> None:
        ended.durable = ended.durable or on_disk

    books.pending.waiters.append(note)
    books.pending.urgent = True
    books.wake_writer()
    return AfterCommit(reply, books.pending.waiters)
