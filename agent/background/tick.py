"""What only time brings: deadlines, reservations that run out, idle leases, stalled connections, room on the disk."""

from __future__ import annotations

from collections.abc import Callable

import trio

from agent.background.wake import Wake
from agent.background.write_events import JOURNALED_AGE_MS
from agent.clock import Clock
from agent.core.books import Books
from agent.operations.expire import expire
from agent.operations.give_back import forget_counters, forget_customers, give_back
from agent.operations.park import try_due
from agent.store.ballast import Ballast

SHORT_S = 0.05
SECOND_MS, MINUTE_MS = 1_000, 60_000


async def tick(books: Books, clock: Clock, sweep: Callable[[], None], ballast: Ballast, wake: Wake) -> None:
    """Look at everything that time alone can change, for ever: once a second, and more often while somebody waits or a
    call in flight has no row yet. ``wake``: somebody waits now, or such a call has begun."""
    second_ms = minute_ms = clock.monotonic_ms()
    while True:
        if books.parked or books.pending.opened:
            await trio.sleep(SHORT_S)
        else:
            left_ms = second_ms + SECOND_MS - clock.monotonic_ms()
            await wake.wait_at_most(max(SHORT_S, left_ms / SECOND_MS))
        now_ms = clock.monotonic_ms()
        if now_ms >= second_ms + SECOND_MS:
            second_ms = now_ms
            expire(books, now_ms, clock.wall_ms())
            give_back(books, now_ms)
            sweep()
        if now_ms >= minute_ms + MINUTE_MS:
            minute_ms = now_ms
            forget_customers(books, now_ms)
            forget_counters(books, now_ms)
            ballast.take_up()
        if books.pending.overdue(now_ms - JOURNALED_AGE_MS):
            books.wake_writer()
        try_due(books, now_ms)
        books.send_answers()
