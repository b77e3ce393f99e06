"""A counter that begins to exist counts what was used before in its own window, and nothing of the window beside it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from control_plane.store import tables
from protocol.entitlements import Scope
from protocol.events import Subject
from protocol.windows import Calendar, WindowKind, window_at

HOUR_MS = 3_600_000
MINUTE_MS = 60_000


@pytest.fixture
def period(world: Any) -> Any:
    """A limit by billing period, for customers whose periods begin at a quarter to."""
    now_ms = world.clock.now_ms()
    world.clock.set(now_ms - now_ms % HOUR_MS + 45 * MINUTE_MS)
    return world.limit(key="period", meter="input_tokens", amount=1_000, window="billing_period")


def renewal_ms(world: Any) -> int:
    """When the period that begins now ends."""
    now_ms = world.clock.now_ms()
    return window_at(WindowKind.BILLING_PERIOD, now_ms, Calendar(now_ms)).end_ms


def use(world: Any, agent: Any, tokens: int, at_ms: int | None = None, **more: Any) -> None:
    agent.upload(world.event("acme", {"input_tokens": tokens}, at_ms=at_ms or world.clock.now_ms(), **more))


def direct(world: Any, of: Any) -> dict[int, int]:
    """What each window of the limit was charged without a lease, by its start."""
    columns = tables.allowances.c
    query = select(columns.window_start_ms, columns.direct).where(columns.counter == of.counter)
    return world.read(lambda connection: {row.window_start_ms: row.direct for row in connection.execute(query)})


def test_a_renewed_period_starts_at_nothing(world: Any, period: Any) -> None:
    world.customer("acme", period)
    ends_ms = renewal_ms(world)
    agent = world.agent()
    world.clock.set(ends_ms - 20 * MINUTE_MS)
    use(world, agent, 900)
    world.clock.set(ends_ms + 1_000)
    assert agent.borrow("acme", period, 400).standing.elsewhere == 0
    assert direct(world, period)[ends_ms] == 0
    assert world.books() == []


def test_a_limit_that_is_new_in_a_plan_counts_what_was_used_in_its_period(world: Any, period: Any) -> None:
    users = world.limit(key="each", meter="input_tokens", amount=1_000, window="billing_period", scope=Scope.USER)
    world.customer("acme", world.limit(key="requests", amount=None))
    began_ms = world.clock.now_ms()
    agent = world.agent()
    ann = Subject(user="ann")
    use(world, agent, 1, at_ms=began_ms - MINUTE_MS, subject=ann)  # the period before's
    use(world, agent, 7, subject=ann)  # in the rest of the hour in which the period begins
    world.clock.advance(20 * MINUTE_MS)
    use(world, agent, 400, subject=ann)
    world.customer("acme", period, users)
    assert agent.borrow("acme", period, 100).standing.elsewhere == 407
    assert direct(world, period) == {began_ms: 407}
    assert agent.borrow("acme", users, 100, user="ann").standing.elsewhere == 400  # of users hours are kept
    assert world.books() == []


def test_a_period_that_is_over_counts_nothing_of_the_next(world: Any, period: Any) -> None:
    world.customer("acme", world.limit(key="requests", amount=None))
    began_ms, ends_ms = world.clock.now_ms(), renewal_ms(world)
    agent = world.agent()
    world.clock.set(ends_ms + 5 * MINUTE_MS)
    use(world, agent, 300)
    world.customer("acme", period)
    use(world, agent, 40, at_ms=ends_ms - 5 * MINUTE_MS)
    assert direct(world, period) == {began_ms: 40}
    assert world.books() == []
