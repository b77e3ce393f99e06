"""Takes usage from elsewhere: calls of any customers that no agent saw, told by whoever saw them."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.operations.author import Author
from control_plane.operations.enter_missed import Outcomes, enter_missed, keep_aside
from control_plane.operations.price_missed import Missed
from control_plane.store import customers
from control_plane.store.database import Connection


def accept_elsewhere(
    connection: Connection, sort: str, calls: Sequence[tuple[str, Missed]], author: Author
) -> Outcomes:
    """Enter these calls, each of the customer beside it; what cannot count but can be read is kept for people.

    Args:
        sort: of what the calls are told (``cloudevents``); with the token that told them it stands where the agent
            stands of other events.
    """
    customers.hold(connection, {customer for customer, _ in calls})
    maker = f"{sort}~{author.token}"
    found = enter_missed(connection, maker, calls, author)
    keep_aside(connection, maker, found.aside, author.now_ms)
    return found
