"""What a request brings of many customers, done in pieces of one transaction each; said again, it does the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from control_plane.api.context import Context
from control_plane.operations.author import Author
from control_plane.operations.correct_usage import Item
from control_plane.store.database import Connection
from protocol.events import UsageEvent
from protocol.violations import Violation

TOGETHER_MAX = 500
"""Calls in one transaction, which holds the rows of their customers."""

Done = tuple[Sequence[Item], Sequence[UsageEvent]]


class OfCustomer(Protocol):
    """What is one customer's."""

    @property
    def customer(self) -> str:
        """Whose."""


T = TypeVar("T", bound=OfCustomer)


def in_pieces(
    context: Context, told: Sequence[T | Violation], work: Callable[[Connection, Sequence[T], Author], Done]
) -> tuple[list[Item | Violation], list[UsageEvent]]:
    """Do ``work`` on all that is no violation, customers in order, so that one transaction holds few of them.

    Returns what came of each, in the order in which they were told, and the events that were entered.
    """
    items: dict[int, Item | Violation] = {}
    calls: list[tuple[int, T]] = []
    for at, one in enumerate(told):
        if isinstance(one, Violation):
            items[at] = one
        else:
            calls.append((at, one))
    calls.sort(key=lambda call: call[1].customer)
    entered: list[UsageEvent] = []
    for start in range(0, len(calls), TOGETHER_MAX):
        piece = calls[start : start + TOGETHER_MAX]
        here = [call for _, call in piece]

        def do(connection: Connection, author: Author, here: Sequence[T] = here) -> Done:
            return work(connection, here, author)

        results, events = context.change(do)
        items |= {at: item for (at, _), item in zip(piece, results, strict=True)}
        entered += events
    return [items[at] for at in range(len(told))], entered
