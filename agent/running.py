"""A running agent but for its doors: memory, journal, and the loops that keep both and the control plane in step."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Protocol

import httpx
import stamina
import trio

from agent.api.dispatch import Dispatch
from agent.background.one_thread import Executor, OneThread
from agent.background.sync import WAIT_MAX_S, Syncer
from agent.background.tick import tick
from agent.background.wake import Wake
from agent.background.watch import watch
from agent.background.write_events import Writer
from agent.clock import Clock
from agent.core.books import Books
from agent.operations.give_back import give_back
from agent.operations.report_status import report_status
from agent.operations.restore import restore
from agent.settings import Settings
from agent.store import ballast as ballast_store
from agent.store import identity
from agent.store.journal import (
    CONFIRMED,
    GENERATION,
    DiskFullError,
    Journal,
    JournalDamagedError,
    open_journal,
    set_aside,
)
from agent.store.outbox import Outbox
from agent.uplink import QuarantinedError, Uplink, UplinkDownError, UplinkRefusedError
from protocol.local_messages import StatusReport
from protocol.uplink_messages import EnrollReply, EnrollRequest

DRAIN_S = 8.0
IN_FLIGHT_S = 2.0

log = logging.getLogger("agent")


class Doors(Protocol):
    """Where callers come in; production's are :class:`agent.api.listeners.Listeners`."""

    def __len__(self) -> int:
        """How many callers are connected."""

    async def run(self) -> None:
        """Serve until cancelled."""

    def flush(self) -> None:
        """Send the late answers that have gathered."""

    def sweep(self) -> None:
        """Let go of callers that have stalled."""

    def stop_accepting(self) -> None:
        """Nobody new comes in."""


class NoDoors:
    """For an agent whose callers live in its own process and call :attr:`Agent.dispatch` themselves."""

    def __len__(self) -> int:
        return 0

    async def run(self) -> None:
        """Nobody comes."""

    def flush(self) -> None:
        """Late answers are calls already."""

    def sweep(self) -> None:
        """Nobody stalls."""

    def stop_accepting(self) -> None:
        """Nobody comes."""


class Agent:
    """One running agent.

    Attributes:
        books: everything that it holds in memory.
        dispatch: takes the requests of callers; the doors call it.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        doors: Doors | None = None,
        thread: Executor | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Read the journal.

        Raises:
            DiskFullError: there is no room to begin.
            sqlite3.Error: the disk is broken.
        """
        self._settings = settings
        self._clock = clock
        self._doors = NoDoors() if doors is None else doors  # one with nobody connected is false
        self._started_ms = clock.monotonic_ms()
        self._journal, self.books, self._outbox = remember(settings, clock)
        self._ballast = ballast_store.Ballast(settings.data_dir)
        self._ballast.take_up()
        self._uplink = Uplink(settings.control_plane_url, settings.ca_file, transport)
        self._thread = OneThread("journal") if thread is None else thread
        self._writer = Writer(self.books, self._journal, self._thread, self._outbox, self._ballast, clock)
        self._syncer = Syncer(self.books, self._journal, self._thread, self._outbox, self._writer, self._uplink, clock)
        self.books.wake_writer = self._writer.wake.set
        self.books.wake_sync = self._syncer.hurry
        self.books.tell_sync = self._syncer.look
        self._waits = Wake()
        self.books.wake_tick = self._waits.set
        self.books.send_answers = self._doors.flush
        self._version = version("allotment-programs")
        self.dispatch = Dispatch(self.books, clock, self.status)

    async def run(self, told_to_stop: Callable[[], Awaitable[object]]) -> None:
        """Serve until ``told_to_stop`` returns, then drain.

        Raises (in a group):
            QuarantinedError: the journal must not be used any longer; it has been set aside.
            sqlite3.Error, JournalDamagedError: the disk is broken.
        """
        try:
            async with self._uplink, trio.open_nursery() as nursery:
                nursery.start_soon(self._doors.run)
                nursery.start_soon(self._writer.run)
                nursery.start_soon(tick, self.books, self._clock, self._doors.sweep, self._ballast, self._waits)
                nursery.start_soon(self._talk)
                await told_to_stop()
                await self._drain()
                nursery.cancel_scope.cancel()
        except* QuarantinedError:
            set_aside(self._settings.data_dir, f"quarantined-{self.books.journal}")
            raise
        self._thread.close()
        self._journal.close()

    async def _talk(self) -> None:
        """Enrol if need be, then keep in touch."""
        known = identity.load(self._settings.data_dir)
        while known is None:
            known = await self._enroll()
        self._uplink.token = known.token
        self.books.agent = known.agent
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._syncer.run)
            nursery.start_soon(watch, self.books, self._uplink, self._syncer, self._clock)

    async def _enroll(self) -> EnrollReply | None:
        if self._settings.join_token is None:
            self._syncer.state = "not_enrolled"
            log.error("this agent has no identity yet and no ALLOTMENT_JOIN_TOKEN to get one; it can allow nothing")
            await trio.sleep_forever()
        request = EnrollRequest(self._settings.join_token or "", self._settings.agent_name)
        try:
            async for attempt in stamina.retry_context(
                on=UplinkDownError, attempts=None, timeout=None, wait_initial=0.1, wait_max=WAIT_MAX_S
            ):
                with attempt:
                    try:
                        reply = await self._uplink.enroll(request)
                    except UplinkDownError as error:
                        if self._syncer.state != "down":
                            log.warning("cannot enrol yet, the control plane does not answer: %s", error)
                        self._syncer.state, self._syncer.last_error = "down", str(error)
                        self.books.uplink_down = True
                        raise
        except UplinkRefusedError as refusal:
            self._syncer.state, self._syncer.last_error = "refused", str(refusal)
            log.error("the control plane does not take the join token: %s", refusal)
            await trio.sleep(30)
            return None
        identity.save(self._settings.data_dir, reply)
        self.books.uplink_down = False
        log.info("enrolled as %s", reply.agent)
        return reply

    async def _drain(self) -> None:
        """Stop taking calls, let those in flight end, put everything on disk, give everything back."""
        log.info("stopping")
        self._doors.stop_accepting()
        with trio.move_on_after(IN_FLIGHT_S):
            while self.books.parked:  # noqa: ASYNC110 - plain functions empty it, one by one; nobody could set an event
                await trio.sleep(0.02)
        self.books.refusing = "This agent is stopping; ask again in a moment."
        self.books.draining = True
        give_back(self.books, self._clock.monotonic_ms(), everything=True)
        while not self.books.pending.empty or self.books.pending.opened:
            if not await self._writer.write_once(young=True):
                break
        said = False
        with trio.move_on_after(DRAIN_S):
            if self._uplink.token:
                said = await self._syncer.finish()
        level = logging.INFO if said else logging.ERROR
        log.log(level, "stopped; %d events on disk wait for the next start", self._outbox.events)

    def is_ready(self) -> bool:
        """Whether this agent can decide: it has spoken with its control plane, or remembers that it had."""
        return self._syncer.first_success.is_set() or any(
            customer.entitlement for customer in self.books.customers.values()
        )

    def status(self) -> StatusReport:
        """What ``status`` answers."""
        oldest = self._outbox.oldest_at_ms()
        now_ms = self._clock.monotonic_ms()
        return report_status(
            self.books,
            now_ms,
            version=self._version,
            state="storage_full" if self._writer.disk_full else "ready" if self.is_ready() else "starting",
            uptime_ms=now_ms - self._started_ms,
            control_plane={
                "url": self._settings.control_plane_url,
                "state": self._syncer.state,
                "error": self._syncer.last_error or None,
                "sqlite": sqlite3.sqlite_version,
            },
            outbox_events=self._outbox.events + len(self.books.pending.events),
            oldest_unsent_ms=0 if oldest is None else max(0, self._clock.wall_ms() - oldest),
            connections=len(self._doors),
        )


def remember(settings: Settings, clock: Clock) -> tuple[Journal, Books, Outbox]:
    """Open the journal and fill memory from it. A damaged one is set aside, never deleted, and a new one begun.

    Raises:
        DiskFullError: there is no room to begin, not even after the ballast has been let go.
    """
    try:
        return _remember(settings, clock)
    except DiskFullError:
        log.error("the disk is full; the ballast is let go so that this agent can start")
        ballast_store.Ballast(settings.data_dir).drop()
        return _remember(settings, clock)
    except JournalDamagedError as damage:
        kept = set_aside(settings.data_dir, f"damaged-{clock.wall_ms()}")
        log.critical("%s; it is kept as %s, and this agent begins with a new one and no leases", damage, kept)
        return _remember(settings, clock)


def _remember(settings: Settings, clock: Clock) -> tuple[Journal, Books, Outbox]:
    journal = open_journal(settings.data_dir)
    try:
        here, now_ms = clock.machine_boot(), clock.monotonic_ms()
        offset_ms = clock.wall_ms() - now_ms
        name = journal.meta("journal") or clock.random_id()
        boot = int(journal.meta("boot") or 0) + 1
        shift_ms = 0
        if journal.meta("machine_boot") not in (None, here):
            shift_ms = int(journal.meta("offset_ms") or offset_ms) - offset_ms
        contents = journal.contents()
        unheard_ms = max(0, clock.wall_ms() - int(journal.meta(CONFIRMED) or clock.wall_ms()))
        books = Books(settings.agent_name, name, boot, clock.random_id(), confirmed_at_ms=now_ms - unheard_ms)
        books.generation = journal.meta(GENERATION) or ""
        restore(books, contents, now_ms, shift_ms)
        journal.put_meta({"journal": name, "boot": str(boot), "machine_boot": here, "offset_ms": str(offset_ms)})
    except (JournalDamagedError, DiskFullError):
        journal.close()
        raise
    outbox = Outbox()
    outbox.fill(contents)
    return journal, books, outbox
