"""The journal's only writer: one transaction for everything that has gathered, then whoever waits for it is told."""

from __future__ import annotations

import logging
from functools import partial

import trio

from agent.background.one_thread import Executor
from agent.background.wake import Wake
from agent.clock import Clock
from agent.core.books import Books
from agent.core.demand import brings_back
from agent.core.pending import Group, applied
from agent.operations.commit_group import to_write
from agent.operations.park import try_again, try_next
from agent.store.ballast import Ballast
from agent.store.journal import DiskFullError, Journal
from agent.store.outbox import KEPT_MS, Outbox

LINGER_S = 0.05
"""How long a write that nobody waits for may wait for company."""
JOURNALED_AGE_MS = 250
"""A call in flight gets a row of its own once it has lived so long."""
FULL_RETRY_S = 0.5

log = logging.getLogger("agent.journal")


class Writer:
    """Writes the journal, one commit group after the other."""

    def __init__(
        self,
        books: Books,
        journal: Journal,
        thread: Executor,
        outbox: Outbox,
        ballast: Ballast,
        clock: Clock,
    ) -> None:
        self._books = books
        self._journal = journal
        self._outbox = outbox
        self._ballast = ballast
        self._wall_ms = clock.wall_ms
        self._now_ms = clock.monotonic_ms
        self._next_seq = 1
        self._thread = thread
        self._writing = trio.Lock()
        self.wake = Wake()
        self.disk_full = False

    async def run(self) -> None:
        """Write whenever there is something to write.

        Raises:
            sqlite3.Error, JournalDamagedError: the disk is broken, not full. What is on it decides at the next start.
        """
        while True:
            await self.wake.wait()
            if not self._books.pending.urgent:
                await self.wake.wait_at_most(LINGER_S)
            pending = self._books.pending
            while not pending.empty or pending.overdue(self._now_ms() - JOURNALED_AGE_MS):
                if not await self.write_once():
                    await trio.sleep(FULL_RETRY_S)

    async def write_once(self, *, young: bool = False) -> bool:
        """Write one group; ``False`` when the disk is full (everything is kept and tried again).

        Args:
            young: calls in flight get their rows whatever their age: the agent is about to stop.
        """
        async with self._writing:
            return await self._write_group(0 if young else JOURNALED_AGE_MS)

    async def _write_group(self, age_ms: int) -> bool:
        books = self._books
        waiting, books.waiting_for_disk = books.waiting_for_disk, set()
        group = books.gather(self._now_ms() - age_ms)
        write = to_write(group, books.boot, self._next_seq, self._wall_ms())
        wall_ms = write.at_ms = self._wall_ms()
        write.confirmed_at_ms = wall_ms - (self._now_ms() - books.confirmed_at_ms)
        write.closed_since_ms = wall_ms - KEPT_MS
        write.generation = books.generation
        write.outdated = self._outbox.outdated(wall_ms)
        books.committing = True
        try:
            await self._thread.run(partial(self._journal.write, write))
        except DiskFullError:
            books.counters.commit_failures += 1
            books.pending.put_back(group)
            books.waiting_for_disk |= waiting
            await self._make_room()
            self._tell(group, on_disk=False)
            books.send_answers()
            return False
        finally:
            books.committing = False
        self._outbox.forget(write.outdated)
        for batch in write.batches:
            self._next_seq += batch.count
            self._outbox.put(batch)
            books.counters.events_written += batch.count
            books.note_unreported()
        self.disk_full = False
        books.counters.commits += 1
        applied(group)
        if any(brings_back(row.lease) for row in group.rows):
            books.bring_news()
        self._tell(group, on_disk=True)
        try_again(books, waiting)
        try_next(books, group.freed - waiting)
        books.send_answers()
        return True

    def _tell(self, group: Group, *, on_disk: bool) -> None:
        for pending in group.events:
            waiters, pending.waiters = list(pending.waiters), []
            for tell in waiters:
                tell(on_disk)
        for tell in group.waiters:
            tell(on_disk)

    async def _make_room(self) -> None:
        if not self.disk_full:
            log.error("the disk is full: nothing is lost, but nothing new is recorded until there is room")
        self.disk_full = True
        self._ballast.drop()
        await self._thread.run(self._journal.drop_kept)
        self._outbox.forget_kept()
        await self._thread.run(self._journal.shorten)
