"""Answers the syncs that wait at the same time in one transaction: one commit, one turn of the writer, for all of them.

On SQLite there is one writer, and a commit costs as much as a sync does; when a change makes hundreds of agents speak
at once, that decides how soon it is in force. On PostgreSQL, syncs run side by side in transactions of their own: it
joins their commits by itself, and rows of several agents locked in one transaction would make deadlocks likely.
"""

from __future__ import annotations

import threading
from collections import deque

from control_plane.operations.sync_agent import Synced, TurnedAway, sync_agent
from control_plane.store.database import Connection, Database
from protocol.uplink_messages import SyncRequest

TOGETHER_MAX = 32

Outcome = Synced | TurnedAway


class _Waiting:
    """One sync that waits: for its outcome, or for its turn to lead."""

    __slots__ = ("agent", "error", "now_ms", "outcome", "said", "woken")

    def __init__(self, agent: str, said: SyncRequest, now_ms: int) -> None:
        self.agent = agent
        self.said = said
        self.now_ms = now_ms
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self.woken = threading.Event()

    def carry_out(self, connection: Connection) -> Outcome:
        """The sync itself."""
        return sync_agent(connection, self.agent, self.said, self.now_ms)


class SyncDesk:
    """Where threads bring their syncs. The first to come leads: it carries out whatever waits by then, its own first,
    and hands the lead to the next in line."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._line: deque[_Waiting] = deque()
        self._lock = threading.Lock()
        self._led = False

    def sync(self, agent: str, said: SyncRequest, now_ms: int) -> Outcome:
        """Carry out a sync. Raises: what :func:`sync_agent` raises, DatabaseUnavailable."""
        mine = _Waiting(agent, said, now_ms)
        if not self._database.is_sqlite:
            return self._database.run(mine.carry_out)
        with self._lock:
            self._line.append(mine)
            leads, self._led = not self._led, True
        if not leads:
            mine.woken.wait()
        if mine.outcome is None and mine.error is None:
            self._lead()
        if mine.error is not None:
            raise mine.error
        assert mine.outcome is not None
        return mine.outcome

    def _lead(self) -> None:
        """Called by whoever is first in line."""
        with self._lock:
            batch = [self._line.popleft() for _ in range(min(TOGETHER_MAX, len(self._line)))]
        try:
            self._carry_out(batch)
        finally:
            with self._lock:
                following = self._line[0] if self._line else None
                self._led = following is not None
            for one in batch[1:]:
                one.woken.set()
            if following is not None:
                following.woken.set()

    def _carry_out(self, batch: list[_Waiting]) -> None:
        if len(batch) > 1:
            try:
                outcomes = self._database.run(lambda connection: [one.carry_out(connection) for one in batch])
            except Exception:  # noqa: BLE001, S110 - whoever it was about is told below
                pass
            else:
                for one, outcome in zip(batch, outcomes, strict=True):
                    one.outcome = outcome
                return
        for one in batch:  # alone: what is wrong with one of them undoes no other
            try:
                one.outcome = self._database.run(one.carry_out)
            except Exception as error:  # noqa: BLE001 - raised again in the thread that brought it
                one.error = error
