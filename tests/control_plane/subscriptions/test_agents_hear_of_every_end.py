"""Whatever changes when a customer will be refused reaches agents, even where all else stays as it is."""

from __future__ import annotations

from typing import Any

from control_plane.core.arrangements import When
from control_plane.operations.change_subscription import SubscriptionOrder, order
from control_plane.operations.move_subscription import Action, Move, move_subscription
from protocol.entitlements import Entitlement
from protocol.uplink_messages import CustomerSync

DAY_MS = 86_400_000


def told(purse: Any, version: int) -> Entitlement | None:
    """What an agent that has this version is sent."""
    reply = purse.sync(customers=(CustomerSync("acme", version),))
    return next(iter(reply.entitlements), None)


def move(purse: Any, action: Action, when: When = When.NOW) -> None:
    step = Move(action, when)
    purse.database.run(lambda connection: move_subscription(connection, "acme", step, purse.author))


def test_a_trial_that_is_extended_goes_on_at_agents(purse: Any) -> None:
    purse.plan()

    def trial(days: int) -> None:
        wanted = SubscriptionOrder("pro", trial_ends_ms=purse.clock.now_ms() + days * DAY_MS, converts=False)
        purse.database.run(lambda connection: order(connection, "acme", wanted, purse.author))

    trial(2)
    first = told(purse, 1)
    assert first is not None
    assert first.ends_in_ms == 2 * DAY_MS
    trial(9)
    longer = told(purse, first.version)
    assert longer is not None, "else agents would refuse everything when the first end comes"
    assert longer.ends_in_ms == 9 * DAY_MS


def test_a_cancellation_to_come_and_its_end_are_told_at_once(purse: Any) -> None:
    purse.plan()
    known = told(purse, 0)
    assert known is not None
    assert known.ends_in_ms is None
    move(purse, Action.CANCEL, When.PERIOD_END)
    ending = told(purse, known.version)
    assert ending is not None
    assert ending.ends_in_ms is not None
    assert told(purse, ending.version) is None
    move(purse, Action.UNCANCEL)
    going_on = told(purse, ending.version)
    assert going_on is not None
    assert going_on.ends_in_ms is None
