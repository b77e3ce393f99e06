"""What a snapshot says beyond the live leases: those closed lately, and grants that the control plane wants to see.

A control plane whose database was restored to an older state does not know them. It says so by the name of a new
generation, by asking to be introduced to, or by asking for the grants of leases that it has forgotten.
"""

from __future__ import annotations

from functools import partial

import msgspec

from agent.background.one_thread import Executor
from agent.core.books import Books
from agent.operations.commit_group import as_granted
from agent.store.journal import Journal
from protocol.codec import MsgpackDecoder
from protocol.leases import Grant, LeaseReport
from protocol.uplink_messages import LEASES_MAX, SyncReply, SyncRequest

SEALED_A_SYNC_MAX = 5_000
"""Grants shown at once: they, and everything else that a sync may hold, stay within ``SYNC_BYTES_MAX``."""

_grant = MsgpackDecoder(Grant)


class Introduction:
    """What this start has still to tell of what it holds."""

    def __init__(self, books: Books, journal: Journal, thread: Executor) -> None:
        self._books = books
        self._journal = journal
        self._thread = thread
        self._first = True
        self._everything = False
        self._show: tuple[str, ...] = ()

    @property
    def due(self) -> bool:
        """Whether the next sync is a snapshot."""
        return self._first or self._everything or bool(self._show)

    def tell_everything(self) -> None:
        """The control plane does not know us as it did: the next sync lists closed leases too."""
        self._everything = True

    async def added_to(self, request: SyncRequest) -> SyncRequest:
        """The request with the leases closed lately, and the grants to be shown.

        Every snapshot lists the newest closed leases, and those of which more may have been used than events say.
        """
        if not request.snapshot:
            return request
        look = partial(self._journal.closed_leases, everything=self._everything or bool(self._show))
        closed = {row.lease: row for row in await self._thread.run(look)}
        room = LEASES_MAX - 1 - len(request.leases)  # one less than it may hold says that it holds all
        reports = [
            LeaseReport(row.lease, row.settled + row.orphan, row.settled, 0, row.orphan, closed=True)
            for row in list(closed.values())[: max(0, room)]
            if row.lease not in self._books.leases
        ]
        sealed: list[Grant] = []
        for name in self._show[:SEALED_A_SYNC_MAX]:
            if name in self._books.leases:
                sealed.append(as_granted(self._books.leases[name]))
            elif name in closed:
                sealed.append(_grant(closed[name].body))
        return msgspec.structs.replace(request, leases=(*request.leases, *reports), sealed=tuple(sealed))

    def heard(self, reply: SyncReply) -> bool:
        """The snapshot was heard. Returns whether there is at once more to tell."""
        self._first = False
        self._everything = reply.generation not in ("", self._books.generation)
        if self._everything:
            self._books.generation = reply.generation
        new = reply.show != self._show  # a peer that asks for the same again and again is not answered in haste
        self._show = reply.show
        return self._everything or (bool(self._show) and new)
