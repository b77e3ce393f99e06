"""Each limit says when it will be reached if use goes on as in the last hour; or that it will not, in its window."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.exhaustion import exhausts_in_ms
from protocol.entitlements import Scope
from protocol.events import Subject
from protocol.instants import rfc3339
from protocol.windows import Window

HOUR_MS = 3_600_000
MINUTE_MS = 60_000


@given(st.integers(-5, 2**53), st.integers(-5, 2**53), st.integers(1, 2 * HOUR_MS), st.integers(0, 2**40))
def test_what_remains_lasts_as_long_as_the_rate_says(remaining: int, used: int, span_ms: int, left_ms: int) -> None:
    found = exhausts_in_ms(remaining, used, span_ms, 1_000, Window(0, 1_000 + left_ms))
    if remaining <= 0:
        assert found == 0
    elif found is not None:
        assert found < left_ms
        assert found * used >= remaining * span_ms > (found - 1) * used
    else:
        assert used <= 0 or remaining * span_ms > (left_ms - 1) * used


@pytest.fixture
def ends(admin: Any, world: Any) -> Any:
    """By limit and scope value: when it ends, and in how long."""

    def look() -> dict[tuple[str, str], tuple[str | None, int | None]]:
        items = admin.get("/v1/customers/acme/balances")["items"]
        return {(item["limit"], item["scope_value"]): (item["exhausts_at"], item["exhausts_in_ms"]) for item in items}

    return look


def test_balances_say_when_they_end(world: Any, ends: Any) -> None:
    now_ms = world.clock.now_ms()
    now_ms -= now_ms % HOUR_MS - 30 * MINUTE_MS
    world.clock.set(now_ms)
    world.customer(
        "acme",
        world.limit(amount=100),
        world.limit(amount=100, window="hour", key="hourly"),
        world.limit(amount=20, scope=Scope.USER, key="each"),
        world.limit(amount=50, feature="search", key="searches"),
        world.limit(amount=None, window="month", key="all"),
        world.limit(amount=600, window="minute", smooth=True, key="rate"),
        world.limit(amount=9, window="in_flight", key="slots"),
    )
    assert set(ends().values()) == {(None, None)}
    agent = world.agent()
    for age_ms in (70 * MINUTE_MS, 50 * MINUTE_MS, 10 * MINUTE_MS):
        agent.upload(world.event("acme", {"requests": 10}, at_ms=now_ms - age_ms, subject=Subject(user="ann")))
    found = ends()
    # Of 100 a day 30 are used, 20 of them within the last hour: 70 last for three hours and a half.
    assert found["requests-day", ""] == (rfc3339(now_ms + 210 * MINUTE_MS), 210 * MINUTE_MS)
    assert found["hourly", ""] == (None, None)  # its window ends before
    assert found["each", "ann"] == (rfc3339(now_ms), 0)  # she has used it up
    for limit in ("searches", "all", "rate", "slots"):
        assert found[limit, ""] == (None, None)


def test_a_user_s_limit_ends_by_the_rate_of_this_hour_and_the_one_before(world: Any, ends: Any) -> None:
    now_ms = world.clock.now_ms()
    now_ms -= now_ms % HOUR_MS - 30 * MINUTE_MS
    world.clock.set(now_ms)
    world.customer("acme", world.limit(amount=100, scope=Scope.USER, key="each"))
    agent = world.agent()
    for user, amount in (("ann", 40), ("bob", 1)):
        subject = Subject(user=user)
        agent.upload(world.event("acme", {"requests": amount}, at_ms=now_ms - 20 * MINUTE_MS, subject=subject))
    assert ends() == {
        ("each", "ann"): (rfc3339(now_ms + 135 * MINUTE_MS), 135 * MINUTE_MS),  # 60 left, at 40 in 90 minutes
        ("each", "bob"): (None, None),
    }
