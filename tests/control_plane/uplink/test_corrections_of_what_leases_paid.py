"""What a lease paid for is corrected like everything, and stays paid where its period is closed."""

from __future__ import annotations

from typing import Any

from control_plane.core.statements import Statement
from control_plane.operations.close_period import close_period, read_statement
from control_plane.operations.correct_usage import Kind, Order, correct_usage
from control_plane.operations.read_balances import BalancesQuery, read_balances
from control_plane.operations.resolve_entitlement import calendar_of
from protocol.leases import LeaseReport
from protocol.windows import WindowKind, window_at


def used(world: Any) -> int:
    query = BalancesQuery({}, None, 10)
    (row,) = world.read(lambda connection: read_balances(connection, "acme", query, world.clock.now_ms()))
    return int(row.used)


def statement(world: Any, start_ms: int) -> Statement:
    found: Statement = world.read(
        lambda connection: read_statement(connection, "acme", start_ms, world.clock.now_ms())[0]
    )
    return found


def test_a_voided_call_gives_back_what_its_lease_paid(world: Any) -> None:
    limit = world.limit("requests", 100, "billing_period")
    world.customer("acme", limit)
    agent = world.agent()
    lease = agent.borrow("acme", limit, 10)
    agent.upload(world.event("acme", {"requests": 4}, [lease], event="call-1"))
    agent.report(LeaseReport(lease.lease, lease.amount, settled=4, closed=True))
    assert used(world) == 4
    void = Order(Kind.VOID, "call-1", reason="a test")
    world.database.run(lambda connection: correct_usage(connection, "acme", "never", void, world.author))
    assert used(world) == 0
    assert world.books() == []


def test_an_event_whose_lease_paid_in_a_closed_period_is_not_charged_again_in_the_next(world: Any) -> None:
    limit = world.limit("requests", 100, "billing_period")
    world.customer("acme", limit)
    by = world.read(lambda connection: calendar_of(connection, "acme", world.clock.now_ms()))
    period = window_at(WindowKind.BILLING_PERIOD, world.clock.now_ms(), by)
    agent = world.agent()
    lease = agent.borrow("acme", limit, 10)
    event = world.event("acme", {"requests": 4}, [lease], event="call-1")
    agent.report(LeaseReport(lease.lease, lease.amount, settled=4, closed=True))
    world.clock.advance(period.end_ms - world.clock.now_ms())
    world.database.run(lambda connection: close_period(connection, "acme", period.start_ms, world.author))
    agent.upload(event)
    assert used(world) == 0, "it was charged in its own period, before that was closed"
    assert statement(world, period.start_ms).usage == ()
    (line,) = statement(world, period.end_ms).usage
    assert (line.meter, line.quantity, line.events) == ("requests", 4, 1)
    (adjusted,) = statement(world, period.end_ms).adjustments
    assert (adjusted.event, adjusted.amounts) == ("call-1", {"requests": 4})
    assert world.books() == []
