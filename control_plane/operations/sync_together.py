"""Answers the syncs that wait at the same time in one transaction: one commit, and one look at what they all need.

On SQLite there is one writer, and a commit costs as much as a sync does; when a change makes hundreds of agents speak
at once, that decides how soon it is in force. On PostgreSQL, syncs run side by side in transactions of their own: it
joins their commits by itself, and rows of several agents locked in one transaction would make deadlocks likely.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import anyio
from anyio import CapacityLimiter, to_thread

from control_plane.clock import Clock
from control_plane.operations.refusals import Busy
from control_plane.operations.sync_agent import Sync, Synced, TurnedAway, sync_agents
from control_plane.store.database import Database
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.uplink_messages import SyncRequest

TOGETHER_MAX = 32
AT_ONCE_MAX = 12
"""On PostgreSQL: fewer than it has connections, so that people are served while a thousand agents sync."""
WAITING_MAX = 512
"""Beyond that an agent is told to come again: it would otherwise wait for longer than it has patience."""

_decode = MsgpackDecoder(SyncRequest)

Outcome = Synced | TurnedAway


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a sync; ``body``: the reply's bytes, empty where there is none."""

    outcome: Outcome
    body: bytes


@dataclass(eq=False, slots=True)
class _Waiting:
    """One sync that waits: for its answer, or for its turn to lead."""

    agent: str
    body: bytes
    bell: anyio.Event = field(default_factory=anyio.Event)
    gone: bool = False
    sync: Sync | None = None
    answer: Answer | None = None
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.answer is not None or self.error is not None

    def read(self, now_ms: int) -> Sync:
        """What it says; heard now, and not when it began to wait."""
        self.sync = Sync(self.agent, _decode(self.body), now_ms)
        return self.sync


class SyncDesk:
    """Where syncs are brought. The first to come leads: it has whatever waits by then carried out in a thread, its own
    first, and hands the lead to the next in line. Owned by one event loop; only its tasks may call it."""

    def __init__(self, database: Database, clock: Clock, heard: Callable[[Synced], None]) -> None:
        """Args: heard: is told, in a thread, what came of each sync that is committed."""
        self._database = database
        self._clock = clock
        self._heard = heard
        self._threads = CapacityLimiter(1 if database.is_sqlite else AT_ONCE_MAX)
        self._line: deque[_Waiting] = deque()
        self._led = False

    def check_room(self) -> None:
        """To be called before a body is taken into memory.

        Raises: Busy: so many wait already that this one would give up before it is answered, and ask once more.
        """
        if len(self._line) + self._threads.statistics().tasks_waiting >= WAITING_MAX:
            raise Busy("busy", "More agents speak at once than can be answered soon; say it again in a moment.")

    async def sync(self, agent: str, body: bytes) -> Answer:
        """Carry out a sync (msgpack). Raises: what :func:`sync_agent` raises, DatabaseUnavailable."""
        mine = _Waiting(agent, body)
        if not self._database.is_sqlite:
            await to_thread.run_sync(self._carry_out, [mine], limiter=self._threads)
        else:
            self._line.append(mine)
            if self._led:
                await self._wait(mine)
            if not mine.is_done:
                await self._lead()
        if mine.error is not None:
            raise mine.error
        assert mine.answer is not None
        return mine.answer

    async def _wait(self, mine: _Waiting) -> None:
        try:
            await mine.bell.wait()
        except BaseException:  # called off
            mine.gone = True
            if mine in self._line:
                self._line.remove(mine)
            if mine.bell.is_set() and not mine.is_done:  # it was to lead
                self._pass_on()
            raise

    async def _lead(self) -> None:
        """Called by whoever is first in line."""
        self._led = True
        batch = self._next()
        try:
            await to_thread.run_sync(self._carry_out, batch, limiter=self._threads)
        finally:
            # Called off before the thread began: whoever is still there is next.
            self._line.extendleft(one for one in reversed(batch[1:]) if not one.is_done and not one.gone)
            for one in batch:
                if one.is_done:
                    one.bell.set()
            self._pass_on()

    def _pass_on(self) -> None:
        self._led = bool(self._line)
        if self._led:
            self._line[0].bell.set()

    def _next(self) -> list[_Waiting]:
        """Those that are carried out now: of each agent one, its others when that is answered."""
        batch: dict[str, _Waiting] = {}
        rest: deque[_Waiting] = deque()
        for one in self._line:
            if len(batch) < TOGETHER_MAX and one.agent not in batch:
                batch[one.agent] = one
            else:
                rest.append(one)
        self._line = rest
        return list(batch.values())

    def _carry_out(self, batch: list[_Waiting]) -> None:
        """In a thread."""
        now_ms = self._clock.now_ms()
        if len(batch) > 1:
            try:
                syncs = [one.read(now_ms) for one in batch]
                outcomes = self._database.run(partial(sync_agents, syncs=syncs))
            except Exception:  # noqa: BLE001, S110 - whoever it was about is told below
                pass
            else:
                for one, outcome in zip(batch, outcomes, strict=True):
                    self._take(one, outcome)
                return
        for one in batch:  # alone: what is wrong with one of them undoes no other
            try:
                alone = [one.sync or one.read(now_ms)]
                self._take(one, self._database.run(partial(sync_agents, syncs=alone))[0])
            except Exception as error:  # noqa: BLE001 - raised again in the task that brought it
                one.error = error

    def _take(self, one: _Waiting, outcome: Outcome) -> None:
        """It is committed: whatever goes wrong from here on is told to this one alone."""
        try:
            if isinstance(outcome, TurnedAway):
                one.answer = Answer(outcome, b"")
                return
            self._heard(outcome)
            one.answer = Answer(outcome, encode_msgpack(outcome.reply))
        except Exception as error:  # noqa: BLE001 - raised again in the task that brought it
            one.error = error
