"""A model call has ended: what its answer said it used is counted, or what it must have used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from agent.core.books import Books
from agent.core.calls import Fetching
from agent.core.undeclared import Said, without_undeclared
from agent.operations.begin import unknown
from agent.operations.enter_event import AfterCommit, repeat_or_correct
from agent.operations.feed import take
from agent.operations.record import record
from agent.operations.release import release
from agent.operations.settle import settle
from protocol.local_messages import End, ErrorReply, Record, Recorded, Release, Settle
from protocol.violations import Violation

Counted = TypeVar("Counted")


def end(books: Books, request: End, now_ms: int, wall_ms: int) -> Recorded | AfterCommit | ErrorReply:
    """Settle it, or release it if it cost nothing. A repeat changes nothing."""
    call = books.calls.get(request.reservation)
    if call is None:
        return _again(books, request.reservation, wall_ms)
    if not take(books, request, lambda _: None):
        return unknown(request.reservation)
    if isinstance(call, Fetching):
        return _fetched(books, call, request, now_ms, wall_ms)
    said = call.ended(request.status, whole=request.whole, sent=request.sent)
    for other in call.others():
        _record(books, other, now_ms, wall_ms)
    if call.provider is not None:
        books.answers.remember(call.provider, call.response, call.name, call.call)
    outcome: Recorded | AfterCommit | ErrorReply = Recorded()  # its provider goes on by itself: it stays held
    if isinstance(said, Release):
        outcome = _release(books, said)
    elif said is not None:
        outcome = _settle(books, said, now_ms, wall_ms)
    if not (isinstance(outcome, ErrorReply) and outcome.retry):
        books.calls.pop(request.reservation)
    return outcome


def _release(books: Books, said: Release) -> Recorded | AfterCommit | ErrorReply:
    """An agent that was started anew meanwhile may hold nothing for it: then there is nothing to give back."""
    outcome = release(books, said)
    lacks = isinstance(outcome, ErrorReply) and outcome.error.code == "reservation_not_found"
    return Recorded() if lacks else outcome


def _fetched(
    books: Books, fetching: Fetching, request: End, now_ms: int, wall_ms: int
) -> Recorded | AfterCommit | ErrorReply:
    """What something that was begun before has used, if that is told by now; however often it is fetched, once."""
    outcome: Recorded | AfterCommit | ErrorReply = Recorded()
    for said in fetching.endings(request.status, whole=request.whole):
        if isinstance(said, Settle):
            outcome = _settle(books, said, now_ms, wall_ms)
        else:
            outcome = _record(books, said, now_ms, wall_ms) or outcome
    books.calls.pop(fetching.name)
    return outcome


def _record(books: Books, said: Record, now_ms: int, wall_ms: int) -> Recorded | AfterCommit | ErrorReply | None:
    """What another model used on the same call, or a batch. Where there is no room for it, the end finds none."""
    return _counted(said, lambda less: record(books, less, now_ms, wall_ms, now_ms))


def _settle(books: Books, said: Settle, now_ms: int, wall_ms: int) -> Recorded | AfterCommit | ErrorReply:
    return _counted(said, lambda less: settle(books, less, now_ms, wall_ms))


def _counted(said: Said, count: Callable[[Said], Counted]) -> Counted:
    """Count it, as far as the catalog has meters for it."""
    while True:
        try:
            return count(said)
        except Violation as wrong:
            less = without_undeclared(said, wrong.code, wrong.field)
            if less is None:
                raise
            said = less


def _again(books: Books, reservation: str, wall_ms: int) -> Recorded | AfterCommit | ErrorReply:
    ended = books.ended.get(reservation)
    if ended is None:
        return unknown(reservation)
    if ended.said is None:
        return release(books, Release(reservation=reservation))
    return repeat_or_correct(books, reservation, ended, ended.said, wall_ms)
