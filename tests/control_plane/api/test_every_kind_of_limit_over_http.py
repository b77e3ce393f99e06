"""A plan with every kind of limit, published over HTTP: agents borrow of each over their door, and people see it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocol.admission import Priority
from protocol.codec import encode_msgpack
from protocol.events import Subject
from protocol.leases import LeaseReport
from protocol.uplink_messages import (
    ENROLL_PATH,
    MSGPACK,
    SYNC_PATH,
    Ask,
    CustomerSync,
    FirstCall,
    SyncReply,
    SyncRequest,
)

LIMITS = [
    {"key": "day", "meter": "requests", "amount": 1000, "window": "day", "batch_floor": 900},
    {"key": "team", "meter": "requests", "amount": 500, "window": "month", "scope": "tag", "scope_tag": "team"},
    {"key": "slots", "meter": "requests", "amount": 12, "window": "in_flight", "at_end": "throttle"},
    {"key": "rate", "meter": "requests", "amount": 600, "window": "minute", "smooth": True, "burst": 60},
    {"key": "pool", "meter": "credits", "amount": 90, "window": "month", "in_flight": "finish", "overage_max": 10},
]
RATES = [{"meter": "credits", "weights": {"requests": 2_500_000}}]
COUNTERS = {
    "day": "*/requests/day/customer",
    "team": "*/requests/month/tag:team",
    "slots": "*/requests/in_flight/customer",
    "rate": "*/requests/minute-rate/customer",
    "pool": "*/credits/month/customer",
}


@pytest.fixture
def sync(admin: Any, client: Any, tokens: Any) -> Any:
    """Says something as an agent on whose host a customer of this plan has not been seen."""
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/meters/credits", {"unit": "credits"})
    plan = {"name": "Pro", "features": [{"feature": "chat"}], "limits": LIMITS, "rates": RATES}
    published = admin.put("/v1/plans/pro", plan)
    assert admin.put("/v1/plans/pro", {name: published[name] for name in plan})["version"] == 1
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.put("/v1/customers/acme/subscription", {"plan": "pro"})
    token = client.post(ENROLL_PATH, json={"join_token": tokens.join, "name": "host-7"}).json()["token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": MSGPACK}

    def say(*asks: Ask, call: FirstCall | None = None, reports: tuple[LeaseReport, ...] = ()) -> SyncReply:
        named = CustomerSync("acme", 0, (call,) if call else (), asks)
        request = SyncRequest("journal-1", 1, "nonce-1", (named,), reports, snapshot=call is not None)
        answer = client.post(SYNC_PATH, content=encode_msgpack(request), headers=headers)
        assert answer.status_code == 200, answer.text
        return msgspec.msgpack.decode(answer.content, type=SyncReply)

    return say


def first(**more: Any) -> FirstCall:
    return FirstCall("first", "chat", Subject(), {"requests": 1}, **more)


def test_a_first_call_borrows_of_every_kind(sync: Any, admin: Any) -> None:
    reply = sync(call=first(tags={"team": "red"}))
    grants = {grant.counter: grant for grant in reply.grants}
    assert set(grants) == set(COUNTERS.values())
    assert grants[COUNTERS["team"]].scope_value == "red"
    assert grants[COUNTERS["pool"]].amount >= 3  # one request makes two and a half credits, rounded up
    rate = grants[COUNTERS["rate"]]
    assert (rate.amount, rate.per_ms, rate.burst, rate.level) == (600, 60_000, 60, 60)
    shown = {item["limit"]: item for item in admin.get("/v1/customers/acme/balances?tag=team:red")["items"]}
    assert (shown["rate"]["smooth"], shown["rate"]["burst"], shown["rate"]["remaining"]) == (True, 60, 0)
    assert (shown["slots"]["window_start"], shown["slots"]["lent"]) == (None, grants[COUNTERS["slots"]].amount)
    assert (shown["team"]["scope_tag"], shown["team"]["scope_value"]) == ("team", "red")
    assert shown["pool"]["ceiling"] == 100
    blue = admin.get("/v1/customers/acme/balances?tag=team:blue")["items"]
    assert [item["lent"] for item in blue if item["limit"] == "team"] == [0]


def test_a_batch_call_is_refused_by_the_limit_whose_floor_it_would_pass(sync: Any) -> None:
    reply = sync(call=FirstCall("first", "chat", Subject(), {"requests": 11}, priority=Priority.BATCH))
    assert len(reply.grants) == 5
    reply = sync(Ask("more", COUNTERS["day"], "", 101, priority=Priority.BATCH))
    assert [denial.exhausted for denial in reply.denials] == [True]


def test_calls_in_flight_finish_beyond_the_limit_and_slots_and_windows_ahead_are_lent(sync: Any) -> None:
    reply = sync(call=first())
    held = {grant.counter: grant for grant in reply.grants}
    all_credits = sync(Ask("credits", COUNTERS["pool"], "", 90 - held[COUNTERS["pool"]].amount)).grants[0]
    asks = (
        Ask("new", COUNTERS["pool"], "", 1),
        Ask("going-on", COUNTERS["pool"], "", 8, finishing=True),
        Ask("ahead", COUNTERS["day"], "", 5, ahead=True),
        Ask("slots", COUNTERS["slots"], "", 1),
    )
    reply = sync(*asks)
    assert [denial.lease for denial in reply.denials] == ["new"]
    granted = {grant.lease: grant for grant in reply.grants}
    assert granted["going-on"].finishing
    assert granted["ahead"].starts_in_ms > 0
    assert not all_credits.finishing
    slots = (granted["slots"], held[COUNTERS["slots"]])
    assert sum(grant.amount for grant in slots) <= 12
    closed = sync(reports=tuple(LeaseReport(grant.lease, 0, 0, closed=True) for grant in slots)).closed
    assert set(closed) == {grant.lease for grant in slots}
