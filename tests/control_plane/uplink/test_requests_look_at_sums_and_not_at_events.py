"""However many events there are: no request adds them up, not an agent's and not a person's."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_event

from control_plane.core.explaining import Call
from control_plane.core.grains import AskedSpan
from control_plane.operations.explain_decision import explain_decision
from control_plane.operations.read_balances import BalancesQuery, read_balances
from control_plane.operations.read_usage import UsageQuery, read_usage
from control_plane.operations.resolve_entitlement import entitlement_of
from control_plane.operations.sync_agent import sync_agent
from protocol.entitlements import Scope
from protocol.events import Subject
from protocol.leases import LeaseReport
from protocol.uplink_messages import Ask, CustomerSync, FirstCall

HOUR_MS = 3_600_000
ADDS_UP = re.compile(r"\b(sum|count|max|min|avg)\s*\(", re.IGNORECASE)
LOOKS_AT_EVENTS = re.compile(r"\b(from|join)\s+events\b", re.IGNORECASE)
BY_NAME = re.compile(r"\bevents\.event (=|in\b)", re.IGNORECASE)


@pytest.fixture
def said(world: Any) -> Any:
    """Notes the statements of what it is given to do."""

    def statements(work: Any) -> list[str]:
        found: list[str] = []

        def noted(connection: Any) -> None:
            def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
                found.append(statement)

            sqlalchemy_event.listen(connection, "before_cursor_execute", note)
            work(connection)

        world.database.run(noted)
        assert found
        return found

    return statements


def test_no_request_adds_up_events(world: Any, said: Any) -> None:
    day, user = world.limit(amount=1_000), world.limit("input_tokens", 9_000, "hour", key="each", scope=Scope.USER)
    world.customer("acme", day, user)
    agent, now_ms = world.agent(), world.clock.now_ms()
    lease = agent.borrow("acme", day, 100)
    used = [world.event("acme", {"requests": 1, "input_tokens": 9}, subject=Subject("ann")) for _ in range(50)]
    agent.upload(*used)
    more = [world.event("acme", {"requests": 1}, [lease], event=name) for name in (used[0].event, "new")]
    customer = CustomerSync(
        "acme", 0,
        first_calls=(FirstCall("first", "chat", Subject("bob"), {"requests": 1, "input_tokens": 50}),),
        asks=(Ask("ask", day.counter, "", 5),),
    )  # fmt: skip
    exchange = agent.request((customer,), (LeaseReport(lease.lease, 100, 1),), (world.batch(1, 51, more),))
    by_day = UsageQuery(AskedSpan(now_ms - 24 * HOUR_MS, now_ms), ("day", "meter"))
    call = Call("chat", None, Subject("ann"), {}, {"requests": 1})
    for work in (
        lambda connection: sync_agent(connection, agent.name, exchange, now_ms),
        lambda connection: read_balances(connection, "acme", BalancesQuery({}, None, 101), now_ms),
        lambda connection: entitlement_of(connection, "acme", now_ms),
        lambda connection: read_usage(connection, "acme", by_day, now_ms),
        lambda connection: explain_decision(connection, "acme", call, None, now_ms),
    ):
        for statement in said(work):
            if LOOKS_AT_EVENTS.search(statement):
                assert BY_NAME.search(statement), statement
                assert not ADDS_UP.search(statement), statement
    assert world.books() == []
