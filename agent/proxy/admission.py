"""Operations for those who can wait for an answer: asked, awaited, and said again where that may help."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from agent.core.metered_call import is_allowed
from agent.core.undeclared import without_undeclared
from protocol.local_messages import ErrorReply, Record, Release, Reply, Request, Reserve, Settle

SETTLE_TRIES = 30
"""A full disk is made room on within minutes; after that, the reservation's own end accounts for the call."""

log = logging.getLogger("agent.proxy")


class Door(Protocol):
    """Where a late answer goes (see :class:`agent.api.dispatch.Door`)."""

    gone: bool

    def late(self, request_id: int, reply: Reply) -> None:
        """Answer now."""


Dispatch = Callable[[Request, Door], Reply | None]


class _Waiting:
    def __init__(self) -> None:
        self.gone = False
        self.reply: Reply | None = None
        self.answered = trio.Event()

    def late(self, _: int, reply: Reply) -> None:
        self.reply = reply
        self.answered.set()


async def ask(dispatch: Dispatch, request: Request) -> Reply:
    """The answer to a request. Cancelled, it leaves nothing held."""
    door = _Waiting()
    reply = dispatch(request, door)
    if reply is not None:
        return reply
    try:
        await door.answered.wait()
    except trio.Cancelled:
        door.gone = True
        if isinstance(request, Reserve) and is_allowed(door.reply):
            dispatch(Release(reservation=request.reservation), door)
        raise
    assert door.reply is not None
    return door.reply


class _Nobody:
    """Whom an extension's answer that had to wait goes to: the next chunk asks again."""

    gone = False

    def late(self, request_id: int, reply: Reply) -> None:
        """Not awaited."""


def ask_at_once(dispatch: Dispatch) -> Callable[[Request], Reply | None]:
    """Asks; ``None``: the answer must wait, and nobody waits for it."""
    nobody = _Nobody()
    return lambda request: dispatch(request, nobody)


Ending = Settle | Release | Record
"""What is said of a call that is over."""


class Settler:
    """Sees to it that what is to be said of calls that are over gets to the disk."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._unknown: set[str] = set()

    async def settle(self, request: Ending) -> None:
        """Say it, whatever comes in between; meters that nobody declared are left out, and told of once."""
        for attempt in range(SETTLE_TRIES):
            reply = await ask(self._dispatch, request)
            if not isinstance(reply, ErrorReply):
                return
            error, less = reply.error, None
            if not isinstance(request, Release):
                less = without_undeclared(request, error.code, error.field)
            if less is not None:
                self._tell_once(error.field or "")
                request = less
            elif reply.retry:
                await trio.sleep(min(10.0, 0.1 * 2**attempt))
            else:
                log.error("call %s is not settled: %s", _named(request), reply.error.message)
                return
        log.error("call %s is not settled: what is held for it ends by itself", _named(request))

    def _tell_once(self, field: str) -> None:
        if field not in self._unknown:
            self._unknown.add(field)
            log.info("the catalog has no meter for %s: what calls use of it is not counted", field)


def _named(request: Ending) -> str:
    return request.event if isinstance(request, Record) else request.reservation
