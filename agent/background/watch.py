"""The hanging request through which changes arrive: plan changes, recalls, capacity that came back."""

from __future__ import annotations

import logging

import stamina
import trio

from agent.background.sync import WAIT_MAX_S, Syncer
from agent.clock import Clock
from agent.core.books import Books
from agent.operations.adopt_sync import adopt_entitlement
from agent.operations.park import try_again
from agent.uplink import Uplink, UplinkDownError, UplinkRefusedError
from protocol.uplink_messages import WatchReply

REFUSED_RETRY_S = 30.0

log = logging.getLogger("agent.watch")


async def watch(books: Books, uplink: Uplink, syncer: Syncer, clock: Clock) -> None:
    """Wait for changes for ever, and see to it that they are looked at."""
    cursor = -1
    await syncer.first_success.wait()
    while True:
        try:
            cursor = await _watch_once(books, uplink, syncer, clock, cursor)
        except UplinkRefusedError as refusal:
            log.warning("not allowed to watch: %s", refusal)
            books.bring_news()  # an exchange settles what we may still do
            await trio.sleep(REFUSED_RETRY_S)


async def _watch_once(books: Books, uplink: Uplink, syncer: Syncer, clock: Clock, cursor: int) -> int:
    retry = stamina.retry_context(
        on=UplinkDownError, attempts=None, timeout=None, wait_initial=0.2, wait_max=WAIT_MAX_S, wait_jitter=1.0
    )
    async for attempt in retry:
        with attempt:
            asked_at_ms = clock.monotonic_ms()
            try:
                reply = await uplink.watch(cursor)
            except UplinkDownError:
                books.report_all = True  # it may come back with an older state: be heard as soon as it answers
                syncer.hurry()
                raise
            # The first watch only learns where "now" is; what changed before that is asked about once.
            books.confirmed_at_ms = now_ms = clock.monotonic_ms()
            if take_note(books, reply, asked_at_ms, now_ms, everything=cursor < 0):
                syncer.hurry()
            books.send_answers()
            return reply.cursor
    raise AssertionError("a retry without a limit ends only by success")


def take_note(books: Books, reply: WatchReply, asked_at_ms: int, now_ms: int, *, everything: bool = False) -> bool:
    """Take in what is new, mark what must be asked about, and try again whoever waits for what came back.

    Returns: whether to ask at once. What is in force already is asked about in a moment: when hundreds of agents hear
    of a change, the answers to their watches are not to wait for their syncs.
    """
    if reply.reset or everything:
        books.look_again |= {name for name, customer in books.customers.items() if customer.entitlement}
    books.look_again |= {name for name in reply.customers if name in books.customers}
    if reply.recall or reply.reset:
        books.report_all = True
    # A customer's first call is decided by what was asked after it came: an answer that was on its way by then may be
    # older than the subscription that its caller has just made.
    known = [one for one in reply.entitlements if (held := books.customers.get(one.customer)) and held.entitlement]
    since_ms = min(now_ms, asked_at_ms + reply.waited_ms)
    adopted = {one.customer for one in known if adopt_entitlement(books, one, since_ms)}
    if adopted:  # it is written with what comes next, or within a second: a start asks anew in any case
        try_again(books, adopted)
    returned = {name for name in reply.returned if name in books.customers}
    if returned:
        for allowance in books.allowances.values():
            if allowance.customer in returned:
                allowance.forget_denial()
        try_again(books, returned)
    if books.look_again:
        books.bring_news()
    return books.report_all or not books.look_again <= adopted
