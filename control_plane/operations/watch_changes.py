"""The change feed in memory: hanging watches wait here, and hold neither a thread nor a database connection."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import anyio
import msgspec

from control_plane.store import changes
from control_plane.store.changes import Bounds, Numbered
from protocol.entitlements import Entitlement
from protocol.uplink_messages import WatchReply

ROWS_MAX = 20_000
CUSTOMERS_MAX = 1_000
WATCHES_OF_AGENT_MAX = 2
"""An agent that begins another watch has given up on the one before."""

CATCH_UP_S = 1.0


@dataclass(eq=False, slots=True)
class Seat:
    """One hanging watch. ``called_off``: it is to be answered, news or not."""

    bell: anyio.Event = field(default_factory=anyio.Event)
    called_off: bool = False

    def call_off(self) -> None:
        """Answer it now."""
        self.called_off = True
        self.bell.set()


class ChangeFeed:
    """The newest rows of the feed, and who waits for more. Owned by one event loop; only its tasks may call it."""

    def __init__(self) -> None:
        self._rows: list[Numbered] = []
        self._numbers: list[int] = []
        self._newest: int | None = None  # none: nothing has been read yet
        self._forgotten = 0  # rows up to here are not in memory
        self._entitlements: dict[str, Entitlement] = {}  # as the newest rows found them
        self._read_at_ms = 0
        self._closed = False
        self._nudge = anyio.Event()
        self._read = anyio.Event()
        self._seats: dict[str, list[Seat]] = {}

    @property
    def newest(self) -> int:
        """Number of the newest row that was read; 0 if none was."""
        return self._newest or 0

    def begin(self, bounds: Bounds) -> None:
        """The newest row of the database. Rows before it are for nobody who waits here."""
        if self._newest is None:
            self._newest = self._forgotten = bounds.newest
        self._tick()

    def take(self, rows: Sequence[Numbered], entitlements: Mapping[str, Entitlement], now_ms: int) -> None:
        """Newer rows, in order: wake whom they concern. ``entitlements``: of their customers, as of ``now_ms``."""
        if not rows:
            return
        self._entitlements, self._read_at_ms = dict(entitlements), now_ms
        self._rows += rows
        self._numbers += [row.change for row in rows]
        self._newest = rows[-1].change
        if len(self._rows) > 2 * ROWS_MAX:
            self._forgotten = self._numbers[-ROWS_MAX - 1]
            self._rows = self._rows[-ROWS_MAX:]
            self._numbers = self._numbers[-ROWS_MAX:]
        everybody = any(row.kind != changes.RECALL for row in rows)
        for agent in list(self._seats) if everybody else {row.agent or "" for row in rows}:
            for seat in self._seats.get(agent, ()):
                seat.bell.set()
        self._tick()

    def nudge(self) -> None:
        """A commit of this process wrote to the feed: read it at once."""
        self._nudge.set()

    async def nudged(self, wait_s: float) -> None:
        """Wait until there is reason to read, or for a while."""
        with anyio.move_on_after(wait_s):
            await self._nudge.wait()
        self._nudge = anyio.Event()

    def close(self) -> None:
        """Answer everybody who waits; from now on watches are answered at once."""
        self._closed = True
        for seats in self._seats.values():
            for seat in seats:
                seat.call_off()
        self._tick()

    async def wait(self, agent: str, cursor: int, wait_ms: int, arrived_ms: int | None = None) -> WatchReply:
        """What has changed since ``cursor``, as soon as something has, and after ``wait_ms`` at the latest.

        Args:
            arrived_ms: when the request came in, if it is to be told entitlements too.
        """
        await self._catch_up(cursor)
        if cursor < 0:
            return WatchReply(self.newest)
        if cursor > self.newest or cursor < self._forgotten:
            return WatchReply(self.newest, reset=True)
        seat = self._sit_down(agent)
        try:
            with anyio.move_on_after(wait_ms / 1_000):
                while True:
                    news = self._news(agent, cursor, arrived_ms)
                    if news is not None:
                        return news
                    cursor = self.newest
                    if self._closed or seat.called_off:
                        break
                    seat.bell = anyio.Event()
                    await seat.bell.wait()
        finally:
            self._leave(agent, seat)
        return WatchReply(cursor)

    async def _catch_up(self, cursor: int) -> None:
        """Another replica may have told the agent of rows that are not read here yet: they will be, in a moment."""
        if not self._lags_behind(cursor):
            return
        with anyio.move_on_after(CATCH_UP_S):
            while self._lags_behind(cursor):
                await self._read.wait()

    def _lags_behind(self, cursor: int) -> bool:
        return not self._closed and (self._newest is None or cursor > self._newest)

    def _news(self, agent: str, cursor: int, arrived_ms: int | None) -> WatchReply | None:
        rows = self._rows[bisect_right(self._numbers, cursor) :]
        customers = dict.fromkeys(row.customer for row in rows if row.kind == changes.ENTITLEMENT)
        returned = dict.fromkeys(row.customer for row in rows if row.kind == changes.RETURNED)
        recall = any(row.kind == changes.RECALL and row.agent == agent for row in rows)
        if not customers and not returned and not recall:
            return None
        if len(customers) > CUSTOMERS_MAX or len(returned) > CUSTOMERS_MAX:
            return WatchReply(self.newest, reset=True)
        reply = WatchReply(self.newest, tuple(customers), recall, tuple(returned))
        if arrived_ms is None or arrived_ms > self._read_at_ms:  # what was read before it asked may be old by now
            return reply
        carried = tuple(self._entitlements[name] for name in customers if name in self._entitlements)
        if not carried:
            return reply
        return msgspec.structs.replace(reply, entitlements=carried, waited_ms=self._read_at_ms - arrived_ms)

    def _sit_down(self, agent: str) -> Seat:
        seats = self._seats.setdefault(agent, [])
        seats.append(Seat())
        for earlier in seats[:-WATCHES_OF_AGENT_MAX]:
            earlier.call_off()
        return seats[-1]

    def _leave(self, agent: str, seat: Seat) -> None:
        seats = self._seats[agent]
        seats.remove(seat)
        if not seats:
            del self._seats[agent]

    def _tick(self) -> None:
        """Something was read, or it is over: whoever waits for that looks again."""
        self._read.set()
        self._read = anyio.Event()
