"""Usage over any span, at any grain, in any zone and by pages: always what the events themselves add up to."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from control_plane.operations.forget_old import DAY_MS, forget_old
from protocol.events import Subject, UsageEvent
from protocol.instants import from_datetime, rfc3339, to_datetime

HOUR_MS = 3_600_000
MINUTE_MS = 60_000


@pytest.fixture
def events(world: Any) -> list[UsageEvent]:
    """What two customers used within six weeks, at any instant."""
    dice = random.Random(5)
    world.customer("acme", world.limit(amount=None))
    world.customer("beta", world.limit(amount=None))
    world.customer("idle", world.limit(amount=None))
    world.clock.set(from_datetime(datetime.fromisoformat("2026-11-03T00:00:00Z")))
    agent = world.agent()
    found = [
        world.event(
            dice.choice(("acme", "acme", "beta")),
            {"requests": 1, "input_tokens": dice.randrange(1_000)},
            feature=dice.choice(("chat", "search")),
            model=dice.choice((None, "m1", "m2")),
            subject=Subject(user=dice.choice((None, "ann", "bob"))),
            at_ms=world.clock.now_ms() - dice.randrange(33 * DAY_MS),
        )
        for _ in range(240)
    ]
    agent.upload(*found)
    return found


def added_up(events: list[UsageEvent], key: Any, customer: str | None = "acme") -> dict[Any, tuple[int, int]]:
    """Quantity and events of each group of all meters' amounts."""
    sums: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    for event in events:
        for meter, amount in event.amounts.items():
            group = key(event, meter) if customer in {None, event.customer} else None
            if group is not None:
                sums[group][0] += amount
                sums[group][1] += 1
    return {group: (total[0], total[1]) for group, total in sums.items()}


def pages(admin: Any, path: str, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = admin.get(f"{path}&limit={limit}{cursor}")
        assert len(answer["items"]) <= limit
        found += answer["items"]
        if answer["next_cursor"] is None:
            return found
        cursor = f"&cursor={answer['next_cursor']}"


def grouped(items: list[dict[str, Any]], *keys: str) -> dict[Any, tuple[int, int]]:
    found = {tuple(item[key] for key in keys): (item["quantity"], item["events"]) for item in items}
    assert len(found) == len(items)
    return found


def local(at_ms: int, zone: str, grain: str) -> str:
    moment = to_datetime(at_ms).astimezone(ZoneInfo(zone))
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if grain == "week":
        midnight = midnight.fromordinal(midnight.toordinal() - midnight.weekday()).replace(tzinfo=ZoneInfo(zone))
    if grain == "month":
        midnight = midnight.replace(day=1)
    return rfc3339(from_datetime(midnight))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "America/New_York"])
@pytest.mark.parametrize("grain", ["day", "week", "month"])
def test_local_days_weeks_and_months_are_exact(
    admin: Any, world: Any, events: list[UsageEvent], zone: str, grain: str
) -> None:
    span = "from=2026-09-20T00:00:00Z&to=2026-11-04T00:00:00Z"
    items = pages(admin, f"/v1/customers/acme/usage?{span}&grain={grain}&zone={zone}&group_by=meter", 7)
    expected = added_up(events, lambda event, meter: (local(event.at_ms, zone, grain), meter))
    assert grouped(items, grain, "meter") == expected


@pytest.mark.parametrize(("grain", "length_ms"), [("minute", MINUTE_MS), ("hour", HOUR_MS)])
def test_minutes_and_hours_are_those_of_the_events(
    admin: Any, world: Any, events: list[UsageEvent], grain: str, length_ms: int
) -> None:
    path = f"/v1/customers/acme/usage?from=2026-09-20T00:00:00Z&grain={grain}&group_by=meter,model&feature=chat"
    expected = added_up(
        events,
        lambda event, meter: (
            (rfc3339(event.at_ms - event.at_ms % length_ms), meter, event.model or "")
            if event.feature == "chat"
            else None
        ),
    )
    assert grouped(pages(admin, path, 50), grain, "meter", "model") == expected


def test_a_span_is_exact_to_the_minute(admin: Any, world: Any, events: list[UsageEvent]) -> None:
    from_ms, to_ms = (
        event.at_ms - event.at_ms % MINUTE_MS for event in sorted(events, key=lambda e: e.at_ms)[40:60:19]
    )
    answer = admin.get(f"/v1/customers/acme/usage?from={rfc3339(from_ms)}&to={rfc3339(to_ms)}")
    assert (answer["from"], answer["to"]) == (rfc3339(from_ms), rfc3339(to_ms))
    expected = added_up(events, lambda event, meter: (meter,) if from_ms <= event.at_ms < to_ms else None)
    assert grouped(answer["items"], "meter") == expected


def test_users_and_what_names_nobody_come_in_pages(admin: Any, world: Any, events: list[UsageEvent]) -> None:
    path = "/v1/customers/acme/usage?from=2026-09-20T00:00:00Z&grain=day&group_by=user,meter"
    expected = added_up(
        events, lambda event, meter: (local(event.at_ms, "UTC", "day"), event.subject.user or "", meter)
    )
    assert grouped(pages(admin, path, 13), "day", "user", "meter") == expected


def test_windows_of_the_customer_are_found_by_their_offset(admin: Any, world: Any, events: list[UsageEvent]) -> None:
    subscription = admin.get("/v1/customers/acme/subscription")
    world.clock.advance(7 * MINUTE_MS)
    for kind in ("hour", "day", "week", "month", "billing_period"):
        spans = [admin.get(f"/v1/customers/acme/usage?window={kind}&offset={offset}") for offset in (0, -1, -2)]
        assert [later["from"] for later in spans[1:]] != [earlier["from"] for earlier in spans[:-1]]
        assert [later["to"] for later in spans[1:]] == [earlier["from"] for earlier in spans[:-1]]
        for span in spans:
            inside = added_up(
                events,
                lambda event, meter, span=span: (
                    (meter,) if span["from"] <= rfc3339(event.at_ms // 1000 * 1000) < span["to"] else None
                ),
            )
            assert grouped(span["items"], "meter") == inside
    period = admin.get("/v1/customers/acme/usage?window=billing_period&offset=-1")
    assert period["from"][8:16] == subscription["anchor"][8:16]  # the same day, hour and minute of the month


def test_all_customers_come_one_after_the_other(admin: Any, world: Any, events: list[UsageEvent]) -> None:
    path = "/v1/usage?from=2026-09-20T00:00:00Z&grain=week&group_by=meter,feature"
    expected = added_up(
        events,
        lambda event, meter: (event.customer, local(event.at_ms, "UTC", "week"), meter, event.feature),
        customer=None,
    )
    for limit in (1, 2, 5, 1000):
        found = grouped(pages(admin, path, limit), "customer", "week", "meter", "feature")
        assert found == expected


def test_minutes_are_forgotten_with_other_records_and_hours_are_not(
    admin: Any, world: Any, events: list[UsageEvent]
) -> None:
    whole = "/v1/customers/acme/usage?from=2026-09-20T00:00:00Z&to=2026-11-04T00:00:00Z"
    before = admin.get(whole)["items"]
    forget_old(world.database, world.clock.now_ms() - 20 * DAY_MS)
    assert admin.get(whole)["items"] == before
    assert world.books() == []
    refused = admin("GET", f"{whole}&grain=minute")
    assert (refused.status_code, refused.json()["field"]) == (400, "from")
    assert "2026-10-14T00:00:00Z" in refused.json()["detail"]
    late = admin.get("/v1/customers/acme/usage?from=2026-10-14T00:00:00Z&grain=minute&limit=1000")["items"]
    expected = added_up(events, lambda event, _: 0 if event.at_ms >= world.clock.now_ms() - 20 * DAY_MS else None)
    assert sum(item["quantity"] for item in late) == expected[0][0]
