"""Enters events of calls that no agent saw, each with its own result, by the rules of those that agents upload."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control_plane.core import reconciliation
from control_plane.operations.author import Author
from control_plane.operations.correct_usage import Item, ItemResult
from control_plane.operations.enter_corrections import Entered, enter_corrections, own_journal
from control_plane.operations.price_missed import Missed, Pricing
from control_plane.store import custody, events
from control_plane.store.database import Connection
from protocol.codec import encode_msgpack
from protocol.events import UsageEvent
from protocol.violations import Violation

CONFLICT = "another event was accepted under this id; amend that one, or use a new id"
Aside = tuple[UsageEvent, ItemResult]


@dataclass(frozen=True)
class Outcomes:
    """What came of calls: of each in their order, what was entered, and what was not although it could be read."""

    items: tuple[Item, ...]
    entered: Entered
    aside: tuple[Aside, ...]


def enter_missed(connection: Connection, maker: str, calls: Sequence[tuple[str, Missed]], author: Author) -> Outcomes:
    """Enter calls, each of the customer beside it: as if an agent had reported them then.

    The rows of the customers must be held. To be called once in a transaction.

    Args:
        maker: what brings these calls; it stands where the agent stands of other events.
    """
    grace_ms = custody.present(connection).generation.grace_ms
    pricing = Pricing(connection, calls)
    judged = _Judged()
    made: dict[tuple[str, str], tuple[int, UsageEvent]] = {}
    for at, (customer, missed) in enumerate(calls):
        try:
            event = pricing.event(customer, missed, author.now_ms)
        except Violation as violation:
            judged.items[at] = Item(missed.event, ItemResult.REJECTED, violation.message)
            continue
        if customer not in pricing.known:
            judged.set_aside(at, event, ItemResult.UNKNOWN_CUSTOMER, "nobody knows this customer")
        elif reconciliation.is_late(missed.at_ms, author.now_ms, grace_ms):
            judged.late.append((at, event))
        elif made.setdefault((customer, missed.event), (at, event))[0] != at:
            judged.again.append((at, event))
    entered = enter_corrections(connection, maker, [event for _, event in made.values()], author)
    names = entered.names
    for identity, (at, event) in made.items():
        if identity in names:
            judged.items[at] = Item(event.event, ItemResult.ACCEPTED)
        else:
            judged.again.append((at, event))
    _compare(connection, judged, f"older than {grace_ms // 86_400_000} days; kept for review, not counted")
    return Outcomes(tuple(judged.items[at] for at in range(len(calls))), entered, tuple(judged.aside))


def keep_aside(connection: Connection, maker: str, aside: Iterable[Aside], now_ms: int) -> None:
    """Keep what could not be counted for people to look at, once however often it is said."""
    rows = [
        events.Conflict(
            event.customer, event.event, maker, own_journal(maker, event), 0, 0, result.value,
            encode_msgpack(event), now_ms,
        )
        for event, result in aside
    ]  # fmt: skip
    known = events.kept_of_journals(connection, {row.journal for row in rows})
    fresh = {(row.journal, row.body): row for row in rows if (row.journal, row.body) not in known}
    events.keep_conflicts(connection, list(fresh.values()))


class _Judged:
    """What is known of calls so far, by their places."""

    def __init__(self) -> None:
        self.items: dict[int, Item] = {}
        self.aside: list[Aside] = []
        self.again: list[tuple[int, UsageEvent]] = []
        self.late: list[tuple[int, UsageEvent]] = []

    def set_aside(self, at: int, event: UsageEvent, result: ItemResult, detail: str) -> None:
        """It does not count."""
        self.items[at] = Item(event.event, result, detail)
        self.aside.append((event, result))


def _compare(connection: Connection, judged: _Judged, late: str) -> None:
    """Ids that are there: the same words are a duplicate, however late they come; other words are a conflict."""
    named = [(event.customer, event.event) for _, event in judged.again + judged.late]
    stored = events.digests(connection, named) if named else {}
    for at, event in judged.again + judged.late:
        digest = stored.get((event.customer, event.event))
        if digest is None:
            judged.set_aside(at, event, ItemResult.LATE, late)
        elif digest == reconciliation.digest(event):
            judged.items[at] = Item(event.event, ItemResult.DUPLICATE)
        else:
            judged.set_aside(at, event, ItemResult.CONFLICT, CONFLICT)
