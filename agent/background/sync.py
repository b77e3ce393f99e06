"""Events up, leases down: one exchange after another for as long as there is something to say."""

from __future__ import annotations

import contextlib
import logging
import math
from functools import partial

import msgspec
import stamina
import trio

from agent.background.introduce import Introduction
from agent.background.one_thread import Executor
from agent.background.wake import Wake
from agent.background.write_events import Writer
from agent.clock import Clock
from agent.core.books import Books
from agent.core.pace import Pace
from agent.operations.adopt_sync import adopt_sync
from agent.operations.compose_sync import compose_sync
from agent.operations.park import try_due
from agent.store.journal import Journal
from agent.store.outbox import Outbox
from agent.uplink import (
    QuarantinedError,
    SnapshotRequiredError,
    Uplink,
    UplinkDownError,
    UplinkRefusedError,
    pause_s,
)
from protocol.events import EventBatch
from protocol.uplink_messages import BATCHES_MAX, LEASES_MAX, HighWater, SyncReply, SyncRequest

GAP_S = 0.25
"""How long news waits for more news at least; an ask goes at once, and so does the rest of a backlog."""
EVENTS_WAIT_MAX = 1_000
"""So many events are not kept waiting for more."""
HEARTBEAT_S = 600.0
"""The hanging watch keeps in touch; this is for what nobody has thought of."""
REFUSED_RETRY_S = 30.0
BATCH_BYTES_A_SYNC = 512 * 1024
BATCH_BYTES_BESIDE_ASKS = 32 * 1024
"""Of events: an ask must not wait until the control plane has taken in a long history."""
WAIT_MAX_S = 5.0
HAND_OVER_SYNCS_MAX = 64
SHUT_OUT = "This agent's journal lives twice or went back; nothing may be allowed here until it has started anew."

log = logging.getLogger("agent.sync")


class Syncer:
    """The one exchange at a time between this agent and its control plane."""

    def __init__(
        self,
        books: Books,
        journal: Journal,
        thread: Executor,
        outbox: Outbox,
        writer: Writer,
        uplink: Uplink,
        clock: Clock,
    ) -> None:
        self._books = books
        self._journal = journal
        self._outbox = outbox
        self._writer = writer
        self._thread = thread
        self._uplink = uplink
        self._clock = clock
        self._introduction = Introduction(books, journal, thread)
        self._backlog = False
        self._pace = Pace()
        self._serial = 0
        self._lost: tuple[HighWater, ...] = ()
        self._exchanging = trio.Lock()
        self._wake = Wake()
        self._hurried = False
        self.state = "connecting"
        self.last_error = ""
        self.first_success = trio.Event()

    async def run(self) -> None:
        """Exchange whenever there is something to say, and once a minute all the same.

        Raises:
            QuarantinedError: this journal must not be used any longer.
        """
        self.hurry()
        while True:
            await self._until_there_is_something_to_say()
            try:
                await self._exchange_until_heard()
            except UplinkRefusedError as refusal:
                self._refused(refusal)
                await trio.sleep(REFUSED_RETRY_S)
                self._books.news = True  # so that it is tried again, whatever else there is to say

    def hurry(self) -> None:
        """There is something to say at once."""
        self._hurried = True
        self._wake.set()

    def look(self) -> None:
        """There is something to say soon, or some time (``Books.news``, ``Books.unreported``)."""
        self._wake.set()

    async def finish(self) -> bool:
        """Say everything that is left to say, as the agent stops; ``False`` when it could not be said now."""
        try:
            for _ in range(100):
                try:
                    await self.exchange(stopping=True)
                except SnapshotRequiredError:
                    continue  # it has forgotten us, and hears it all with the next
                while not self._books.pending.empty:
                    if not await self._writer.write_once():
                        return False
                if not self._outbox.events and not any(lease.done for lease in self._books.leases.values()):
                    return True
        except (UplinkDownError, UplinkRefusedError) as error:
            log.error("stopping, but the control plane does not answer: %s", error)
        return False

    @property
    def _urgent(self) -> bool:
        books = self._books
        return bool(books.asking or books.look_again or books.report_all)

    async def _until_there_is_something_to_say(self) -> None:
        """An ask ends the wait at once; news after a moment; a backlog is not waited for; silence ends some time. Where
        there is nothing to say, nothing wakes: hundreds of idle agents on a machine would keep it busy with looking."""
        if self._backlog:
            return
        books = self._books
        gathered_s, over_s = math.inf, trio.current_time() + HEARTBEAT_S
        while not self._hurried and not self._is_time() and trio.current_time() < min(gathered_s, over_s):
            news = books.news or self._urgent
            if news:
                gathered_s = min(gathered_s, trio.current_time() + GAP_S)
            await self._wake.wait_at_most(GAP_S if news or books.unreported else over_s - trio.current_time())

    def _is_time(self) -> bool:
        """Whether what was used has waited long enough to be said, or is too much to wait."""
        now_ms = self._clock.monotonic_ms()
        return self._books.unreported and (
            now_ms >= self._pace.due_at_ms(now_ms) or self._outbox.events >= EVENTS_WAIT_MAX
        )

    async def _exchange_until_heard(self) -> None:
        """Repeat with growing, jittered pauses; each try carries what is true by then."""
        retry = stamina.retry_context(
            on=pause_s, attempts=None, timeout=None, wait_initial=0.1, wait_max=WAIT_MAX_S, wait_jitter=1.0
        )
        async for attempt in retry:
            with attempt:
                try:
                    await self.exchange(stopping=False)
                except UplinkDownError as error:
                    self._unheard(error)
                    raise

    async def exchange(self, *, stopping: bool) -> None:
        """One sync: compose, send, adopt."""
        async with self._exchanging:
            self._books.exchanging = True
            try:
                await self._exchange(stopping=stopping)
            finally:
                self._books.exchanging = False

    async def _exchange(self, *, stopping: bool) -> None:
        books = self._books
        books.news = books.unreported = False
        self._pace.said(self._clock.monotonic_ms())
        batches = await self._next_batches()
        more = len(batches) < len(self._outbox)
        introduction = self._introduction
        asked_at_ms, self._hurried = self._clock.monotonic_ms(), False
        request = compose_sync(books, batches, asked_at_ms, snapshot=introduction.due, stopping=stopping)
        self._serial += 1
        request = msgspec.structs.replace(
            request, confirmed=self._outbox.marks(), lost=self._outbox.lost(), serial=self._serial
        )
        request = await introduction.added_to(request)
        try:
            reply = await self._said(request)
        except SnapshotRequiredError:
            introduction.tell_everything()  # it has forgotten us: its database was restored to an older state
            raise
        except QuarantinedError:
            await self._hand_over(len(batches))
            raise
        again = introduction.heard(reply)
        if self.state != "connected":
            log.info("the control plane answers")
        if self.state == "refused":
            books.refusing = ""
        self.state, self.last_error, books.uplink_down = "connected", "", False
        self.first_success.set()
        books.counters.syncs += 1
        waited = self._outbox.events
        confirmed = sum(self._outbox.confirm(mark.boot, mark.seq) for mark in reply.high_water)
        again = again or self._outbox.events > waited  # it wants events again that it had confirmed
        books.counters.events_confirmed += confirmed
        for trouble in reply.event_problems:
            log.warning(
                "event %s (boot %d, seq %d): %s: %s",
                trouble.event,
                trouble.boot,
                trouble.seq,
                trouble.code,
                trouble.message,
            )
        self._report_lost()
        adopt_sync(books, request, reply, asked_at_ms, self._clock.monotonic_ms())
        books.send_answers()
        self._backlog = (more and confirmed > 0) or again
        if self._urgent:
            self.hurry()

    def _report_lost(self) -> None:
        """A control plane that was restored to an older state asks for events that it had confirmed. Those that were
        kept are sent again; what is no longer here is said to it, and to people."""
        lost = self._outbox.lost()
        if lost and lost != self._lost:
            missing = ", ".join(f"boot {mark.boot} up to event {mark.seq}" for mark in lost)
            self.last_error = (
                f"the control plane has lost events that it had confirmed and that are gone here: {missing}"
            )
            log.error("%s", self.last_error)
        self._lost = lost

    async def _hand_over(self, sent: int) -> None:
        """This journal is shut out. What nobody knows of it is said all the same, once.

        How far its leases are used counts where a copy has taken over; its events are at least kept for people to look
        at. What cannot be sent stays in the journal, which is set aside.
        """
        books = self._books
        books.refusing = SHUT_OUT
        await self._writer.write_once(young=True)
        leases = tuple(lease.report() for lease in books.leases.values() if lease.written)[:LEASES_MAX]
        for _ in range(HAND_OVER_SYNCS_MAX):
            keys = self._outbox.next_keys(BATCH_BYTES_A_SYNC, BATCHES_MAX, after=sent)
            if not keys and not leases:
                return
            batches = tuple(await self._batches(keys))
            try:
                with contextlib.suppress(QuarantinedError):
                    await self._uplink.sync(SyncRequest(books.journal, books.boot, books.nonce, (), leases, batches))
                leases, sent = (), sent + len(keys)
            except (UplinkDownError, UplinkRefusedError) as error:
                log.warning("the last events of this journal cannot be handed over: %s", error)
                return

    async def _said(self, request: SyncRequest) -> SyncReply:
        """Send it. What it asks to look at is ticked off as it leaves, not as it is answered: a change that is heard of
        meanwhile may be too new for this answer, and must be asked about again."""
        books = self._books
        looked, every = books.look_again & {named.customer for named in request.customers}, books.report_all
        books.look_again -= looked
        books.report_all = False
        try:
            return await self._uplink.sync(request)
        except BaseException:
            books.look_again |= looked
            books.report_all = books.report_all or every
            raise

    async def _next_batches(self) -> list[EventBatch]:
        bytes_max = BATCH_BYTES_BESIDE_ASKS if self._urgent else BATCH_BYTES_A_SYNC
        keys = self._outbox.next_keys(bytes_max, BATCHES_MAX)
        return await self._batches(keys) if keys else []

    async def _batches(self, keys: list[tuple[int, int]]) -> list[EventBatch]:
        rows = await self._thread.run(partial(self._journal.read_batches, keys))
        return [EventBatch(row.boot, row.first, row.count, row.crc32, row.body) for row in rows]

    def _unheard(self, error: UplinkDownError) -> None:
        books = self._books
        books.counters.sync_failures += 1
        if self.state != "down":
            log.warning("the control plane cannot be reached, going on with what is leased: %s", error)
        self.state, self.last_error, books.uplink_down = "down", str(error), True
        try_due(books, self._clock.monotonic_ms())
        books.send_answers()

    def _refused(self, refusal: UplinkRefusedError) -> None:
        log.error("the control plane refuses this agent: %s", refusal)
        self.state, self.last_error = "refused", str(refusal)
        self._books.refusing = (
            "The control plane has revoked this agent; nothing may be allowed here until it is enrolled."
        )
        try_due(self._books, self._clock.monotonic_ms())
        self._books.send_answers()
