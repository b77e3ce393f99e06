"""Calls that wait - for a first lease, for the journal, for returns - and when they are tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agent.core.books import PARKED_MAX, Attempt, Books, Parked
from protocol.local_messages import ErrorReply, Problem, Reply


def attend(books: Books, customer: str, attempt: Attempt, answer: Callable[[Reply], None], deadline_ms: int) -> None:
    """Keep a call until ``attempt`` gives an answer or its deadline has come."""
    if books.parked >= PARKED_MAX:
        text = f"{PARKED_MAX} calls are waiting on this host already; try again later"
        answer(ErrorReply(error=Problem("overloaded", text), retry=True))
        return
    books.customer(customer).parked.append(Parked(attempt, answer, deadline_ms))
    books.parked += 1
    books.counters.waited += 1


def try_again(books: Books, customers: Iterable[str], now_ms: int) -> None:
    """Something changed for these customers: whoever waits for them is tried again, first come first served."""
    for name in customers:
        customer = books.customers.get(name)
        if customer is None or not customer.parked:
            continue
        waiting, customer.parked = customer.parked, []
        books.parked -= len(waiting)
        for parked in waiting:
            reply = parked.attempt(parked.deadline_ms <= now_ms)
            if reply is None:
                customer.parked.append(parked)
                books.parked += 1
            else:
                parked.answer(reply)


def try_all(books: Books, now_ms: int) -> None:
    """Try everybody again: deadlines have come, refusals have aged, or the control plane is out of reach."""
    if books.parked:
        try_again(books, [name for name, customer in books.customers.items() if customer.parked], now_ms)
