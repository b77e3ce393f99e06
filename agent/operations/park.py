"""Calls that wait - for a first lease, for the journal, for returns - and when they are tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agent.core.books import PARKED_MAX, Attempt, Books, Customer, Parked
from agent.core.reservations import Ended
from protocol.local_messages import Reserve

HEAD = 64
"""How many of a customer's waiting calls are tried when only time has passed; a lease that comes tries all of them."""


def attend(books: Books, customer: str, attempt: Attempt, deadline_ms: int, wants: Reserve | None = None) -> bool:
    """Keep a call until ``attempt`` answers it; ``False`` when too many wait already."""
    if books.parked >= PARKED_MAX:
        return False
    books.customer(customer).parked.append(Parked(attempt, deadline_ms, wants))
    books.parked += 1
    books.wake_tick()
    books.counters.waited += 1
    return True


def withdraw(books: Books, reservation: str) -> bool:
    """Whoever waits to reserve under this id waits no longer: it has ended before it was decided."""
    waiting = [
        (customer, parked)
        for customer in books.customers.values()
        for parked in customer.parked
        if parked.wants is not None and parked.wants.reservation == reservation
    ]
    for customer, parked in waiting:
        assert parked.wants is not None
        books.ended.put(reservation, Ended(None, None, parked.wants.call, durable=True))
        customer.parked.remove(parked)
        books.parked -= 1
        parked.attempt()
    return bool(waiting)


def try_again(books: Books, customers: Iterable[str]) -> None:
    """Something changed for these customers: whoever waits for them is tried again, first come first served."""
    for name in sorted(customers):  # in an order that a seed can repeat
        customer = books.customers.get(name)
        if customer is not None and customer.parked:
            _try(books, customer, lambda _position, _parked: True)


def try_next(books: Books, customers: Iterable[str]) -> None:
    """Calls of these customers gave something back: those who wait are tried in turn, until one must wait on."""
    for name in sorted(customers):  # in an order that a seed can repeat
        customer = books.customers.get(name)
        if customer is None or not customer.parked:
            continue
        _end_queues(customer)
        while customer.parked:
            first = customer.parked.pop(0)
            if not first.attempt():
                customer.parked.insert(0, first)
                break
            books.parked -= 1


def try_due(books: Books, now_ms: int) -> None:
    """Time has passed: try those whose deadline has come, and the first few of each customer (refusals age)."""
    if not books.parked:
        return
    for customer in [customer for customer in books.customers.values() if customer.parked]:
        _try(books, customer, lambda position, parked: position < HEAD or parked.deadline_ms <= now_ms)


def _try(books: Books, customer: Customer, chosen: Callable[[int, Parked], bool]) -> None:
    waiting, customer.parked = customer.parked, []
    _end_queues(customer)
    customer.count_afresh()
    still = [parked for position, parked in enumerate(waiting) if not (chosen(position, parked) and parked.attempt())]
    books.parked += len(still) - len(waiting)
    customer.parked = still + customer.parked


def _end_queues(customer: Customer) -> None:
    """Those who wait for a rate queue up again as they are tried, in their order; newcomers stand behind them."""
    for rate in customer.queues:
        rate.queued = 0
    customer.queues.clear()
