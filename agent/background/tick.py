"""What only time brings: deadlines, reservations that run out, idle leases, stalled connections, room on the disk."""

from __future__ import annotations

from collections.abc import Callable

import trio

from agent.background.write_events import JOURNALED_AGE_MS
from agent.clock import Clock
from agent.core.books import Books
from agent.operations.expire import expire
from agent.operations.give_back import forget_counters, forget_customers, give_back
from agent.operations.park import try_due
from agent.store.ballast import Ballast

SHORT_S = 0.05
EVERY_SECOND = 20
EVERY_MINUTE = 60 * EVERY_SECOND


async def tick(books: Books, clock: Clock, sweep: Callable[[], None], ballast: Ballast) -> None:
    """Look at everything that time alone can change, for ever."""
    count = 0
    while True:
        await trio.sleep(SHORT_S)
        count += 1
        now_ms = clock.monotonic_ms()
        if count % EVERY_SECOND == 0:
            expire(books, now_ms, clock.wall_ms())
            give_back(books, now_ms)
            sweep()
        if count % EVERY_MINUTE == 0:
            forget_customers(books, now_ms)
            forget_counters(books, now_ms)
            ballast.take_up()
        if books.pending.overdue(now_ms - JOURNALED_AGE_MS):
            books.wake_writer()
        try_due(books, now_ms)
        books.send_answers()
