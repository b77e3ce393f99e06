"""Leases that go home, and memory no longer needed. Runs again and again, looks at everything, takes no input."""

from __future__ import annotations

from agent.core.books import Books
from agent.core.budget import Allowance
from agent.core.demand import IDLE_RETURN_MS, brings_back, goes_back, renewal_due
from agent.core.leases import Lease
from agent.core.slots import SlotLease
from agent.operations.admit import seek_ahead
from agent.operations.adopt_sync import forget_lease

FORGET_CUSTOMER_MS = 600_000
FORGET_UNKNOWN_MS = 60_000


def give_back(books: Books, now_ms: int, *, everything: bool = False) -> None:
    """Close leases that are used up, over, idle or disowned, and see that those kept are renewed in time.

    A lease that a call in flight holds is reported as closed only after that call has ended.

    Args:
        everything: the agent stops; nothing is kept.
    """
    for lease in list(books.leases.values()):
        counter = books.allowances[lease.key]
        for begun in counter.begin_window(now_ms):
            books.pending.touch(begun)
        allowance = books.holder(lease)
        assert allowance is not None
        if isinstance(lease, SlotLease) and lease.let_go(now_ms):
            books.pending.touch(lease)
        if not lease.closing and (
            everything or (goes_back(lease, allowance, now_ms) and not _finishes(lease, counter, now_ms))
        ):
            lease.give_up(now_ms)
            books.pending.touch(lease)
        elif lease.window_end_ms == counter.window_end_ms and now_ms - counter.last_debit_ms < IDLE_RETURN_MS:
            seek_ahead(books, counter, lease.window_end_ms - lease.window_start_ms, now_ms)
        if lease.disowned and lease.held == 0:
            forget_lease(books, lease.id)
        elif renewal_due(lease, now_ms) and not lease.closing and not books.exchanging:
            books.bring_news()
    if not books.pending.empty:
        books.wake_writer()
    if not books.exchanging:
        _tell_ended(books)


def _tell_ended(books: Books) -> None:
    """See to it that leases that are done are reported: soon if that returns something, else with what comes next."""
    for lease in books.leases.values():
        if lease.done and not (lease.reported and lease.reported.closed):
            books.note_unreported()
            if type(lease) is not Lease or brings_back(lease):
                books.bring_news()


def _finishes(lease: Lease, counter: Allowance, now_ms: int) -> bool:
    """Whether calls are in flight that may need this slice to finish."""
    useful = lease.finishing and not lease.disowned and not lease.over(now_ms)
    return useful and any(other.held for other in counter.leases)


def forget_customers(books: Books, now_ms: int) -> None:
    """Drop customers that nobody has asked about for long and of whom nothing is held."""
    holding = {lease.customer for lease in books.leases.values()} | {held.call.customer for held in books.reservations}
    holding |= {asking.customer for asking in books.asking.values()}  # else what they get would be nobody's
    for name, customer in list(books.customers.items()):
        idle_ms = now_ms - customer.last_used_ms
        limit_ms = FORGET_CUSTOMER_MS if customer.entitlement else FORGET_UNKNOWN_MS
        if idle_ms < limit_ms or customer.parked or (customer.first_call and not books.uplink_down) or name in holding:
            continue
        del books.customers[name]
        books.look_again.discard(name)
        books.pending.entitlements[name] = None
        for key in [key for key in books.allowances if key[0] == name]:
            del books.allowances[key]


def forget_counters(books: Books, now_ms: int) -> None:
    """Drop counters of which nothing is held and that nobody has touched for long: users come and go by the million."""
    idle = [
        key
        for key, allowance in books.allowances.items()
        if now_ms - allowance.last_debit_ms >= FORGET_CUSTOMER_MS
        and not any(part.leases or part.ask for part in allowance.parts())
    ]
    for key in idle:
        del books.allowances[key]
    for name in {key[0] for key in idle} & books.customers.keys():
        books.customers[name].paths.clear()  # they hold the counters that are gone
