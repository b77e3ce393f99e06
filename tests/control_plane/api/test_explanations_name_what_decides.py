"""Why a customer is allowed or refused, now and then; recorded decisions come out the same; and what other terms do."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest

from control_plane.operations.sync_agent import Synced, sync_agent
from control_plane.store.database import Database
from protocol.codec import encode_msgpack
from protocol.events import EventBatch, Subject, UsageEvent
from protocol.instants import rfc3339
from protocol.leases import LeaseReport
from protocol.uplink_messages import Ask, CustomerSync, SyncRequest

HOUR_MS = 3_600_000
TERMS = {
    "features": [{"feature": "chat"}, {"feature": "sso", "enabled": False}],
    "limits": [
        {"key": "day", "meter": "requests", "amount": 10, "window": "day"},
        {
            "key": "user-day",
            "meter": "requests",
            "amount": 3,
            "window": "day",
            "scope": "user",
            "by_role": {"admin": 5},
        },
        {"key": "big", "meter": "output_tokens", "amount": 500, "window": "request"},
        {"key": "trial-run", "meter": "requests", "amount": 1, "window": "hour", "shadow": True},
    ],
}


class Caller:
    """One agent that tells of calls."""

    def __init__(self, database: Database, clock: Any) -> None:
        self.database, self.clock, self.seq = database, clock, 0

    def sync(self, **parts: Any) -> Any:
        request = SyncRequest("journal", 1, "nonce", snapshot=True, **parts)
        outcome = self.database.run(lambda connection: sync_agent(connection, "agent-1", request, self.clock.now_ms()))
        assert isinstance(outcome, Synced), outcome
        return outcome.reply

    def call(self, user: str, **amounts: int) -> None:
        self.seq += 1
        made = UsageEvent(
            f"e{self.seq}", "acme", "chat", self.clock.now_ms(), {"requests": 1, **amounts}, Subject(user)
        )
        body = encode_msgpack([made])
        self.sync(batches=(EventBatch(1, self.seq, 1, crc32(body), body),))


@pytest.fixture
def caller(admin: Any, database: Database, clock: Any) -> Caller:
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/features/sso", {"name": "SSO", "kind": "boolean"})
    admin.put("/v1/plans/pro", {"name": "Pro", **TERMS})
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.put("/v1/customers/acme/subscription", {"plan": "pro"})
    return Caller(database, clock)


def explain(admin: Any, **asked: Any) -> Any:
    return admin.get("/v1/customers/acme/explain", params={"feature": "chat", **asked})


def test_an_allowed_call_shows_every_limit_on_its_path(admin: Any, caller: Caller) -> None:
    for _ in range(2):
        caller.call("u1")
    found = explain(admin, user="u1")
    assert (found["decision"], found["code"], found["plan"], found["subscription"]) == (
        "allow",
        "ok",
        "pro@1",
        "active",
    )
    assert [(one["limit"], one["used"], one["remaining"], one["granted"]) for one in found["limits"]] == [
        ("day", 2, 8, True),
        ("user-day", 2, 1, True),
        ("trial-run", 2, 0, False),
    ]
    assert found["limits"][2]["shadow"], "it would have refused, and does not"
    assert found["limits"][0]["sources"] == [{"source": "plan:pro@1", "amount": 10}]


def test_a_refusal_names_the_limit_and_what_else_would_be_allowed(admin: Any, caller: Caller) -> None:
    for _ in range(3):
        caller.call("u1")
    found = explain(admin, user="u1")
    assert (found["decision"], found["code"], found["limiting"]) == ("block", "usage_limit_reached", "user-day")
    assert found["message"] == "Refused by limit 'user-day' (requests: 3 of 3 used, 1 needed)."
    assert explain(admin, user="u2")["decision"] == "allow"
    assert explain(admin, user="u1", role="admin")["decision"] == "allow", "admins have an amount of their own"
    assert explain(admin, user="u2", meter="output_tokens", amount=501)["code"] == "requested_usage_exceeds_limit"
    assert explain(admin, feature="sso")["code"] == "feature_unavailable"
    assert explain(admin, feature="nothing")["code"] == "feature_not_found"


def test_what_agents_hold_is_told_apart(admin: Any, caller: Caller) -> None:
    ask = Ask("lease-1", "*/requests/day/customer", "", 4, 1)
    caller.sync(customers=(CustomerSync("acme", 0, asks=(ask,)),))
    caller.sync(leases=(LeaseReport("lease-1", cap=4, settled=1, in_flight=2),))
    day = explain(admin)["limits"][0]
    assert (day["used"], day["reserved"], day["lent"], day["remaining"]) == (1, 2, 1, 7)


def test_overrides_and_statuses_are_part_of_the_reason(admin: Any, caller: Caller) -> None:
    admin.put("/v1/customers/acme/overrides/more", {"limit": "day", "add": 5, "reason": "kindness"})
    day = explain(admin)["limits"][0]
    assert (day["amount"], [one["source"] for one in day["sources"]]) == (15, ["plan:pro@1", "override:more"])
    admin.post("/v1/customers/acme/subscription/moves", {"action": "pause"})
    found = explain(admin)
    assert (found["code"], found["subscription"], found["cause"]) == (
        "subscription_paused",
        "paused",
        "subscription.pause",
    )


def test_the_past_is_explained_as_it_was(admin: Any, caller: Caller, clock: Any) -> None:
    begun_ms = clock.now_ms()
    caller.call("u1")
    clock.advance(60_000)
    between_ms = clock.now_ms()
    clock.advance(60_000)
    for _ in range(2):
        caller.call("u1")
    admin.put("/v1/customers/acme/subscription", {"plan": "pro", "status": "paused"})
    assert explain(admin, user="u1")["code"] == "subscription_paused"
    then = explain(admin, user="u1", at=rfc3339(between_ms))
    assert (then["decision"], [one["used"] for one in then["limits"]][:2]) == ("allow", [1, 1])
    assert (
        admin("GET", "/v1/customers/acme/explain", params={"feature": "chat", "at": rfc3339(begun_ms - 1)}).json()[
            "code"
        ]
        == "instant_not_found"
    )


def test_a_recorded_decision_comes_out_the_same_after_the_plan_has_changed(admin: Any, caller: Caller) -> None:
    version = admin.get("/v1/customers/acme")["version"]
    admin.put("/v1/plans/pro", {"name": "Pro", "features": [{"feature": "chat"}]})
    admin.put("/v1/customers/acme/subscription", {"plan": "pro", "version": 2})
    refused = {
        "version": version,
        "feature": "chat",
        "decision": "block",
        "code": "usage_limit_reached",
        "limiting": "user-day",
        "subject": {"user": "u1"},
        "usage": {"day": 3, "user-day": 3},
    }
    found = admin.post("/v1/customers/acme/explain/replays", refused)
    assert (found["same"], found["differences"], found["explanation"]["plan"]) == (True, [], "pro@1")
    other = admin.post("/v1/customers/acme/explain/replays", {**refused, "usage": {"day": 3, "user-day": 1}})
    assert other["same"] is False
    assert other["differences"][0] == "decision: block then, allow now"
    newer = admin.post("/v1/customers/acme/explain/replays", {**refused, "version": version + 1})
    assert newer["explanation"]["decision"] == "allow"
    assert admin("POST", "/v1/customers/acme/explain/replays", json={**refused, "version": 99}).status_code == 404


def test_what_if_says_who_would_have_been_refused_and_when(admin: Any, caller: Caller, clock: Any) -> None:
    start_ms = clock.now_ms()
    for hour in range(4):
        caller.call("u1" if hour % 2 else "u2", output_tokens=200)
        clock.advance(HOUR_MS)
    terms = {
        "features": [{"feature": "chat"}],
        "limits": [
            {"key": "fewer", "meter": "requests", "amount": 3, "window": "month"},
            {"key": "rate", "meter": "requests", "amount": 1, "window": "minute", "smooth": True},
        ],
    }
    asked = {"terms": terms, "plan": "pro", "start": rfc3339(start_ms), "end": rfc3339(clock.now_ms())}
    (found,) = admin.post("/v1/what-if", asked)
    assert (found["customer"], found["plan"], found["calls"], found["allowed"]) == ("acme", "pro@1", 4, 3)
    assert found["refused"] == [
        {
            "limit": "fewer",
            "calls": 1,
            "quantity": 1,
            "first_at": rfc3339(start_ms + 3 * HOUR_MS),
            "last_at": rfc3339(start_ms + 3 * HOUR_MS),
        }
    ]
    assert found["not_replayed"] == ["rate"]
    assert admin("POST", "/v1/what-if", json={**asked, "plan": "nobodys"}).status_code == 400


def test_support_may_ask_why(support: Any, caller: Caller) -> None:
    assert explain(support)["decision"] == "allow"


def test_what_if_replays_so_many_events_of_all_customers_together(
    admin: Any, caller: Caller, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.operations.try_plan.EVENTS_MAX", 2)
    start_ms = clock.now_ms()
    for _ in range(3):
        caller.call("u1")
    admin.put("/v1/customers/beta", {"name": "Beta"})
    admin.put("/v1/customers/beta/subscription", {"plan": "pro"})
    terms = {"features": [{"feature": "chat"}]}
    asked = {"terms": terms, "plan": "pro", "start": rfc3339(start_ms), "end": rfc3339(start_ms + 1)}
    found = admin.post("/v1/what-if", asked)
    assert [(one["customer"], one["calls"], one["cut"]) for one in found] == [("acme", 2, True), ("beta", 0, False)]
