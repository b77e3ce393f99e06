"""Hosts: the real agent on a disk and a clock of its own, killed, suspended, stopped, and started again."""

from __future__ import annotations

import random
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from agent.running import Agent
from agent.settings import Settings
from agent.store.journal import DiskFullError, JournalDamagedError, set_aside
from agent.uplink import QuarantinedError
from protocol.local_messages import Reply
from tests.simulation.determinism import queue
from tests.simulation.faults import Blow, Killed
from tests.simulation.journal_disk import Disk, Inline
from tests.simulation.moments import HostClock
from tests.simulation.network import Line, SimNet
from tests.simulation.standstill import OWNER

if TYPE_CHECKING:
    from tests.simulation.world import World

URL = "http://control-plane"


class Door:
    """One life of an agent, as its callers see it."""

    def __init__(self, answered: Callable[[int, Reply], None]) -> None:
        self.gone = False
        self._answered = answered

    def late(self, request_id: int, reply: Reply) -> None:
        """An answer that had to wait."""
        if not self.gone:
            self._answered(request_id, reply)


class Host:
    """One machine.

    Attributes:
        agent: the life that runs now; ``None`` between lives.
        standing: the machine is suspended.
        left: leases that the last life still knew at its end.
        held_down: it is not started again for now.
    """

    def __init__(self, world: World, name: str, root: Path, dice: random.Random) -> None:
        self._world = world
        self.name = name
        self.dice = dice
        self.disk = Disk(root)
        self.clock = HostClock(world.time, dice, dice.randint(-1, 1) * world.rates.drift_ppm)
        self.agent: Agent | None = None
        self.door = Door(lambda *_: None)
        self.answered: Callable[[int, Reply], None] = lambda *_: None
        self.cut_off: Callable[[], None] = lambda: None
        self.standing = False
        self.being_repaired = trio.Lock()
        self.held_down = False
        self.lives = 0
        self.last_journal = ""
        self.left: set[str] = set()
        self.line = Line(name)
        self._scope = trio.CancelScope()
        self._told_to_stop = trio.Event()
        self._ended = trio.Event()
        self.disk.struck = self._struck
        self.disk.met_full = self._met_full
        self.disk.met_slow = self._met_slow

    @property
    def serves(self) -> bool:
        """Whether its callers can be answered now."""
        return self.agent is not None and not self.standing and not self.disk.gone

    async def live(self) -> None:
        """One life after the other."""
        while True:
            while self.held_down:  # noqa: ASYNC110 - plain functions let it go
                await trio.sleep(0.25)
            await self._one_life()
            await trio.sleep(self.dice.uniform(0.2, 4.0))

    async def _one_life(self) -> None:
        self.lives += 1
        self._fsync_failed = False
        self.disk.gone = False
        self._scope, self._told_to_stop, self._ended = trio.CancelScope(), trio.Event(), trio.Event()
        ended = trio.Event()
        before = OWNER.set(self)
        try:
            self._world.nursery.start_soon(self._run, ended)
        finally:
            OWNER.reset(before)
        await ended.wait()

    async def _run(self, ended: trio.Event) -> None:
        line = Line(self.name, self.line.up_cut, self.line.down_cut)
        life_disk = self.disk
        line.is_dead = lambda: life_disk.gone
        self.line = line
        how = "killed"
        with self._scope:
            try:
                self._begin()
                assert self.agent is not None
                await self.agent.run(self._told_to_stop.wait)
                how = "stopped"
            except* Killed:
                how = "killed at its disk"
            except* QuarantinedError:
                how = "quarantined"
                self._world.chronicle.numbers["journals quarantined"] += 1
            except* (sqlite3.OperationalError, DiskFullError, JournalDamagedError) as group:
                how = "ended by its disk"
                self._expect_disk_fault(group)
            except* Exception as group:  # noqa: BLE001 - whatever else ends an agent is a breach
                how = "broken"
                self._world.chronicle.breach("agents end only as told", "".join(traceback.format_exception(group)))
        self._end(how)
        ended.set()

    def _begin(self) -> None:
        settings = Settings(URL, self.name, self.disk.folder, self.disk.folder, join_token=self._world.join_token)
        agent = Agent(
            settings,
            self.clock,
            thread=Inline(self.disk, self._fsync_s),
            transport=SimNet(self._world.network, self.line),
        )
        self._world.checkers.after_restart(agent.books)
        self.door = Door(self.answered)
        self.agent = agent
        self.last_journal = agent.books.journal
        self._world.chronicle.note(f"{self.name} starts: journal {agent.books.journal}, boot {agent.books.boot}")

    def _fsync_s(self) -> float:
        return self.dice.random() * self._world.rates.fsync_s

    def _end(self, how: str) -> None:
        self.disk.gone = True
        self.disk.fuse = None
        self.door.gone = True
        self.left = set(self.agent.books.leases) if self.agent is not None else set()
        self.agent = None
        self.disk.unplug()
        if how == "quarantined":
            self._world.lose(self, f"quarantined-{self.last_journal}")
        self._world.chronicle.note(f"{self.name} ends: {how}")
        self._world.chronicle.numbers[f"agents {how}"] += 1
        self.cut_off()
        self._ended.set()

    def _expect_disk_fault(self, group: BaseExceptionGroup[BaseException]) -> None:
        if not (self.disk.full or self._fsync_failed):
            self._world.chronicle.breach("agents end only as told", "".join(traceback.format_exception(group)))

    def _struck(self, blow: Blow) -> None:
        hit = self._world.checkers.what_a_kill_hits(self)
        failed = blow in (Blow.IO_ERROR, Blow.IO_ERROR_WRITTEN)
        if failed:
            self._fsync_failed = True
            self._world.chronicle.numbers["fsyncs failed"] += 1
        for what in hit:
            self._world.chronicle.happened(f"{'' if failed else 'agent killed '}{blow.value}", what)

    def _met_slow(self) -> None:
        if self.agent is not None and self.agent.books.waiting_for_disk:
            self._world.chronicle.happened("slow fsync", "calls wait")
        elif self.agent is not None and self.agent.books.pending.events:
            self._world.chronicle.happened("slow fsync", "events wait")

    def _met_full(self) -> None:
        waiting = self.agent is not None and bool(self.agent.books.pending.events)
        self._world.chronicle.happened("disk full", "events wait" if waiting else "leases wait")

    # What strikes it.

    def kill(self) -> None:
        """SIGKILL: what is on the disk is all that remains."""
        if self.agent is None or self.disk.gone:
            return
        for what in self._world.checkers.what_a_kill_hits(self):
            self._world.chronicle.happened("agent killed", what)
        self.disk.gone = True
        self.door.gone = True
        self.go_on()
        self._scope.cancel()

    async def until_down(self) -> None:
        """Wait for the end of this life."""
        if self.agent is not None:
            await self._ended.wait()

    def suspend(self) -> None:
        """Nothing runs, however long; time goes on."""
        if self.agent is not None and not self.standing:
            self.standing = True
            queue().stop(self)

    def go_on(self) -> None:
        """It runs again."""
        if self.standing:
            self.standing = False
            queue().go_on(self)

    def stop(self) -> None:
        """SIGTERM: drain, give everything back, end."""
        self._told_to_stop.set()

    def put_journal_aside(self) -> None:
        """The journal is lost, the identity is not."""
        set_aside(self.disk.folder, "lost")
