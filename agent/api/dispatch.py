"""A request to its operation, and the reply back: at once, or later through the door it came by. Plain functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from agent.api.exposition import exposition
from agent.core.books import PARKED_MAX, Books
from agent.operations.begin import begin, decided
from agent.operations.check import check
from agent.operations.end import end
from agent.operations.enter_event import AfterCommit
from agent.operations.extend import extend
from agent.operations.feed import feed
from agent.operations.park import attend
from agent.operations.record import record
from agent.operations.release import release
from agent.operations.report_usage import report_usage
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.decisions import Decision, Verdict
from protocol.local_messages import (
    DEADLINE_MS,
    Begin,
    Check,
    End,
    ErrorReply,
    Extend,
    Feed,
    Problem,
    Record,
    Recorded,
    Release,
    Reply,
    Request,
    Reserve,
    Settle,
    Status,
    StatusReport,
    Usage,
)
from protocol.violations import Violation

Outcome = Reply | AfterCommit | None


class Door(Protocol):
    """Where a request came from, and where a reply that comes later must go."""

    @property
    def gone(self) -> bool:
        """Whether nobody is left to tell."""

    def late(self, request_id: int, reply: Reply) -> None:
        """Answer the request of this id now."""


class Clock(Protocol):
    """The two clocks that operations are told of."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back."""


class Dispatch:
    """Calls the operation that a request names."""

    def __init__(self, books: Books, clock: Clock, status: Callable[[], StatusReport]) -> None:
        self._books = books
        self._clock = clock
        self._status = status

    def __call__(self, request: Request, door: Door) -> Reply | None:
        """The reply, or ``None``: ``door.late`` will be called with it, within the request's deadline."""
        if self._books.draining and not isinstance(request, Status | Usage):
            return _DRAINING
        if type(request) is Begin:
            opened = begin(self._books, request)
            if not isinstance(opened, Reserve):
                return opened
            request = opened
        now_ms = self._clock.monotonic_ms()
        until_ms = now_ms + getattr(request, "deadline_ms", DEADLINE_MS)
        outcome = self._operate(request, now_ms, until_ms)
        if type(outcome) is AfterCommit:
            outcome.waiters.append(partial(self._committed, door, request.id, outcome.reply))
            return None
        if outcome is None:
            return self._wait(request, door, until_ms)
        return self._counted(outcome)  # type: ignore[arg-type]  # mypy does not narrow by `type() is`

    def metrics(self) -> bytes:
        """What there is to count, for Prometheus."""
        return exposition(self._status(), self._books.tally)

    def _operate(self, request: Request, now_ms: int, until_ms: int) -> Outcome:
        books = self._books
        try:
            match request:
                case Reserve():
                    outcome = reserve(books, request, now_ms, until_ms)
                    if books.calls:
                        decided(books, request, outcome)
                    return outcome
                case Settle():
                    return settle(books, request, now_ms, self._clock.wall_ms())
                case Check():
                    return check(books, request, now_ms, until_ms)
                case Extend():
                    return extend(books, request, now_ms, until_ms)
                case Release():
                    return release(books, request)
                case Record():
                    return record(books, request, now_ms, self._clock.wall_ms(), until_ms)
                case Usage():
                    return report_usage(books, request, now_ms, until_ms)
                case Feed():
                    return feed(books, request, now_ms)
                case End():
                    return end(books, request, now_ms, self._clock.wall_ms())
                case Begin():
                    raise AssertionError("it has become a reserve")
                case Status():
                    return self._status()
        except Violation as wrong:
            books.counters.refused_input += 1
            return ErrorReply(error=Problem(wrong.code, wrong.message, wrong.field or None))

    def _wait(self, request: Request, door: Door, until_ms: int) -> Reply | None:
        """Keep the request until what it lacks has come, or its deadline."""

        def attempt() -> bool:
            if door.gone:
                return True  # nobody is left to tell; holding anything for them would only strand it
            outcome = self._operate(request, self._clock.monotonic_ms(), until_ms)
            if outcome is None:
                return False
            if isinstance(outcome, AfterCommit):
                outcome.waiters.append(partial(self._committed, door, request.id, outcome.reply))
            else:
                door.late(request.id, self._counted(outcome))
            return True

        wants = request if isinstance(request, Reserve) else None
        if attend(self._books, _customer_of(self._books, request), attempt, until_ms, wants):
            return None
        text = f"{PARKED_MAX} calls are waiting on this host already; try again later"
        return ErrorReply(error=Problem("overloaded", text), retry=True)

    def _committed(self, door: Door, request_id: int, reply: Recorded, on_disk: bool) -> None:
        door.late(request_id, reply if on_disk else _NOT_RECORDED)

    def _counted(self, reply: Reply) -> Reply:
        if type(reply) is Decision:
            counters = self._books.counters
            if reply.decision is Verdict.ALLOW:
                counters.allowed += 1
            elif reply.decision is Verdict.THROTTLE:
                counters.throttled += 1
            else:
                counters.blocked += 1
        return reply


_DRAINING = ErrorReply(
    error=Problem("draining", "this agent is stopping; repeat the same request under the same id in a moment"),
    retry=True,
)

_NOT_RECORDED = ErrorReply(
    error=Problem(
        "not_recorded",
        "this host's disk did not take the record (is it full?); repeat the same request under the same id",
    ),
    retry=True,
)


def _customer_of(books: Books, request: Request) -> str:
    match request:
        case Check() | Reserve() | Record():
            return request.call.customer
        case Usage():
            return request.customer
        case Extend():
            held = books.reservations.get(request.reservation)
            assert held is not None
            return held.call.customer
        case _:
            raise AssertionError(f"{request!r} never waits")
