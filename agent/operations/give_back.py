"""Leases that go home, and memory no longer needed. Runs again and again, looks at everything, takes no input."""

from __future__ import annotations

from agent.core.books import Books
from agent.core.demand import goes_back, renewal_due
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
        allowance = books.allowances[lease.key]
        if not lease.closing and (everything or goes_back(lease, allowance, now_ms)):
            lease.closing = True
            lease.lower(0)
            books.pending.touch(lease)
        if lease.disowned and lease.held == 0:
            forget_lease(books, lease.id)
        elif renewal_due(lease, now_ms) and not lease.closing:
            books.news = True
    if not books.pending.empty:
        books.wake_writer()
    if any(lease.done and not (lease.reported and lease.reported.closed) for lease in books.leases.values()):
        books.news = True


def forget_customers(books: Books, now_ms: int) -> None:
    """Drop customers that nobody has asked about for long and of whom nothing is held."""
    holding = {lease.customer for lease in books.leases.values()} | {held.call.customer for held in books.reservations}
    holding |= {key[0] for key in books.asking}  # a lease may be on its way, and would be claimed by nobody
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
            books.asking.pop(key, None)


def forget_counters(books: Books, now_ms: int) -> None:
    """Drop counters of which nothing is held and that nobody has touched for long: users come and go by the million."""
    idle = [
        key
        for key, allowance in books.allowances.items()
        if not allowance.leases and allowance.ask is None and now_ms - allowance.last_debit_ms >= FORGET_CUSTOMER_MS
    ]
    for key in idle:
        del books.allowances[key]
    for name in {key[0] for key in idle} & books.customers.keys():
        books.customers[name].paths.clear()  # they hold the counters that are gone
