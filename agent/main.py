"""Wires the agent's rooms together and runs them until it is told to stop."""

from __future__ import annotations

import gc
import logging
import resource
import signal
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import stamina
import trio

from agent.api import frames, http
from agent.api.dispatch import Dispatch
from agent.api.frames import FramesDoor
from agent.api.http import HttpDoor
from agent.api.listeners import Listeners
from agent.api.sockets import FRAMES_NAME, HTTP_NAME, listen_loopback, listen_unix
from agent.background.one_thread import OneThread
from agent.background.sync import WAIT_MAX_S, Syncer
from agent.background.tick import tick
from agent.background.watch import watch
from agent.background.write_events import Writer
from agent.clock import SystemClock, machine_boot, random_id
from agent.core.books import Books
from agent.operations.give_back import give_back
from agent.operations.report_status import report_status
from agent.operations.restore import restore
from agent.settings import Settings
from agent.store import ballast as ballast_store
from agent.store import data_dir, identity
from agent.store.journal import CONFIRMED, DiskFullError, Journal, JournalDamagedError, open_journal, set_aside
from agent.store.outbox import Outbox
from agent.uplink import QuarantinedError, Uplink, UplinkDownError, UplinkRefusedError
from protocol.local_messages import StatusReport
from protocol.uplink_messages import EnrollReply, EnrollRequest
from protocol.violations import Violation

DRAIN_S = 8.0
IN_FLIGHT_S = 2.0
OWN_FILES = 48
"""Open files that are not callers' connections: journal, listeners, the control plane, and some to spare."""

log = logging.getLogger("agent")


class Agent:
    """One running agent."""

    def __init__(self, settings: Settings, clock: SystemClock) -> None:
        self._settings = settings
        self._clock = clock
        self._started_ms = clock.monotonic_ms()
        self._journal, self.books, self._outbox = remember(settings, clock)
        self._ballast = ballast_store.Ballast(settings.data_dir)
        self._ballast.take_up()
        self._uplink = Uplink(settings.control_plane_url, settings.ca_file)
        self._thread = OneThread("journal")
        self._writer = Writer(self.books, self._journal, self._thread, self._outbox, self._ballast, clock)
        self._syncer = Syncer(self.books, self._journal, self._thread, self._outbox, self._writer, self._uplink, clock)
        self._listeners = Listeners(clock.monotonic_ms, settings.connections_max, self.books.idle)
        self.books.wake_writer = self._writer.wake.set
        self.books.wake_sync = self._syncer.wake.set
        self.books.send_answers = self._listeners.flush
        self._version = version("allotment-programs")

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain.

        Raises:
            SocketTakenError: another agent serves these sockets.
            QuarantinedError: the journal must not be used any longer; it has been set aside.
            sqlite3.Error, JournalDamagedError: the disk is broken.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:  # from before anybody can reach us
            self._listen()
            await self._serve(signals)

    async def _serve(self, told_to_stop: AsyncIterator[int]) -> None:
        async with self._uplink, trio.open_nursery() as nursery:
            nursery.start_soon(self._listeners.run)
            nursery.start_soon(self._writer.run)
            nursery.start_soon(tick, self.books, self._clock, self._listeners.sweep, self._ballast)
            nursery.start_soon(self._talk)
            gc.collect()
            gc.set_threshold(20_000, 20, 50)
            gc.freeze()  # what is here now stays; a full collection over it would stall calls for tens of milliseconds
            log.info(
                "serving on %s (journal %s, boot %d)", self._settings.socket_dir, self.books.journal, self.books.boot
            )
            await anext(told_to_stop)
            await self._drain()
            nursery.cancel_scope.cancel()
        self._thread.close()
        self._journal.close()

    def _listen(self) -> None:
        """Open every door; the frames' last, so that whoever sees that one finds the others open too."""
        settings = self._settings
        dispatch = Dispatch(self.books, self._clock, self.status)
        if settings.http_port:
            on_port = listen_loopback(settings.http_port)
            self._listeners.listen(on_port, partial(HttpDoor, dispatch, self._is_ready, guarded=True), http.BUSY)
        try:
            on_http = listen_unix(settings.socket_dir / HTTP_NAME, settings.socket_mode)
            on_frames = listen_unix(settings.socket_dir / FRAMES_NAME, settings.socket_mode)
        except OSError as error:
            raise _unusable("ALLOTMENT_SOCKET_DIR", settings.socket_dir, error) from None
        self._listeners.listen(on_http, partial(HttpDoor, dispatch, self._is_ready, guarded=False), http.BUSY)
        self._listeners.listen(on_frames, partial(FramesDoor, dispatch), frames.BUSY)

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
        self._listeners.stop_accepting()
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

    def _is_ready(self) -> bool:
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
            state="storage_full" if self._writer.disk_full else "ready" if self._is_ready() else "starting",
            uptime_ms=now_ms - self._started_ms,
            control_plane={
                "url": self._settings.control_plane_url,
                "state": self._syncer.state,
                "error": self._syncer.last_error or None,
                "sqlite": sqlite3.sqlite_version,
            },
            outbox_events=self._outbox.events + len(self.books.pending.events),
            oldest_unsent_ms=0 if oldest is None else max(0, self._clock.wall_ms() - oldest),
            connections=len(self._listeners),
        )


def remember(settings: Settings, clock: SystemClock) -> tuple[Journal, Books, Outbox]:
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


def _remember(settings: Settings, clock: SystemClock) -> tuple[Journal, Books, Outbox]:
    journal = open_journal(settings.data_dir)
    try:
        here, now_ms = machine_boot(), clock.monotonic_ms()
        offset_ms = clock.wall_ms() - now_ms
        name = journal.meta("journal") or random_id()
        boot = int(journal.meta("boot") or 0) + 1
        shift_ms = 0
        if journal.meta("machine_boot") not in (None, here):
            shift_ms = int(journal.meta("offset_ms") or offset_ms) - offset_ms
        contents = journal.contents()
        unheard_ms = max(0, clock.wall_ms() - int(journal.meta(CONFIRMED) or clock.wall_ms()))
        books = Books(settings.agent_name, name, boot, random_id(), confirmed_at_ms=now_ms - unheard_ms)
        restore(books, contents, now_ms, shift_ms)
        journal.put_meta({"journal": name, "boot": str(boot), "machine_boot": here, "offset_ms": str(offset_ms)})
    except (JournalDamagedError, DiskFullError):
        journal.close()
        raise
    outbox = Outbox()
    for batch in contents.outbox:
        outbox.put(batch)
    return journal, books, outbox


def run(settings: Settings) -> None:
    """Run one agent until it is told to stop.

    Raises:
        DirectoryTakenError, SocketTakenError: another agent is there already.
        QuarantinedError: the journal has been set aside; start again.
        Violation: a directory that cannot be used, by the name of its variable.
    """
    try:
        data_dir.claim(settings.data_dir)
    except OSError as error:
        raise _unusable("ALLOTMENT_DATA_DIR", settings.data_dir, error) from None
    connections_max = _connections_possible(settings.connections_max)
    agent = Agent(replace(settings, connections_max=connections_max), SystemClock())
    try:
        trio.run(agent.run)
    except BaseExceptionGroup as group:
        first = _first_of(group)
        if isinstance(first, QuarantinedError):
            set_aside(settings.data_dir, f"quarantined-{agent.books.journal}")
        raise first from group


def _unusable(variable: str, path: Path, error: OSError) -> Violation:
    return Violation(
        variable, f"names {path}, which cannot be used: {error.strerror}", "a directory this user may write"
    )


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first fault in a group: one broken loop ends the agent, and the others are cancelled with it."""
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _connections_possible(wanted: int) -> int:
    """How many connections this process may hold: it raises its own limit of open files as far as it is let, and keeps
    some for the journal and for the control plane, whatever its callers open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OWN_FILES
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    possible = max(1, min(wanted, max(soft, allowed) - OWN_FILES))
    if possible < wanted:
        log.warning("the limit of open files allows %d connections, not %d", possible, wanted)
    return possible
