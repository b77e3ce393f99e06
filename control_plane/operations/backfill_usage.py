"""Enters calls of one customer that no agent saw, by an order of an admin: once for its id, with a reason."""

from __future__ import annotations

from typing import Annotated

import msgspec

from control_plane.operations.author import Author
from control_plane.operations.change_customer import require_customer
from control_plane.operations.correct_usage import MAKER, ItemResult, Outcome, remember, remembered
from control_plane.operations.enter_missed import enter_missed, keep_aside
from control_plane.operations.price_missed import Missed
from control_plane.store.database import Connection

EVENTS_MAX = 500


class Backfill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order: these calls, and why."""

    events: Annotated[tuple[Missed, ...], msgspec.Meta(min_length=1, max_length=EVENTS_MAX)]
    reason: str = ""


def backfill_usage(connection: Connection, customer: str, correction: str, order: Backfill, author: Author) -> Outcome:
    """Enter what was missed; the same said twice changes nothing, and answers the same.

    Raises: NotFound: no such customer. Conflict: another order was given under this id.
    """
    require_customer(connection, customer, lock=True)
    known = remembered(connection, customer, correction, order)
    if known is not None:
        return known
    found = enter_missed(connection, MAKER, [(customer, missed) for missed in order.events], author)
    # What contradicts an accepted event is told to whoever gives the order; what is late waits for others to look at.
    late = [one for one in found.aside if one[1] is ItemResult.LATE]
    keep_aside(connection, MAKER, late, author.now_ms)
    outcome = Outcome(found.items, found.entered.effects)
    remember(connection, customer, correction, "backfill", order, outcome, author)
    return outcome
