"""A threshold that is crossed is told once, and again only after it has recovered; notices are a numbered feed."""

from __future__ import annotations

import threading
from typing import Any
from zlib import crc32

import pytest

from control_plane.operations.sync_agent import Synced, sync_agent
from control_plane.store import agents
from protocol.codec import encode_msgpack
from protocol.events import EventBatch, Subject, UsageEvent
from protocol.leases import LeaseReport
from protocol.uplink_messages import Ask, CustomerSync, SyncRequest

DAY_MS = 86_400_000
PATH = "/v1/customers/acme"
LIMITS: list[dict[str, Any]] = [
    {"key": "tokens", "meter": "input_tokens", "amount": 1_000, "window": "day", "thresholds": [50, 80, 100]},
    {"key": "each", "meter": "images", "amount": 4, "window": "day", "scope": "user", "thresholds": [75]},
]


@pytest.fixture
def acme(admin: Any, database: Any, clock: Any) -> Any:
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/meters/images", {"unit": "images"})
    admin.put("/v1/plans/pro", {"name": "Pro", "features": [{"feature": "chat"}], "limits": LIMITS})
    admin.put(PATH, {"name": "Acme"})
    admin.put(PATH + "/subscription", {"plan": "pro"})
    database.run(lambda connection: agents.add(connection, "agent-2", "agent-2", clock.now_ms()))
    return admin


class Sender:
    """Agents whose events no lease paid."""

    def __init__(self, database: Any, clock: Any) -> None:
        self.database, self.clock = database, clock
        self.seqs: dict[str, int] = {}
        self.known: set[str] = set()

    def __call__(self, tokens: int, user: str | None = None, agent: str = "agent-1") -> None:
        seq = self.seqs[agent] = self.seqs.get(agent, 0) + 1
        amounts = {"requests": 1, "input_tokens": tokens} | ({"images": 1} if user else {})
        event = UsageEvent(f"{agent}-{seq}", "acme", "chat", self.clock.now_ms(), amounts, Subject(user=user))
        body = encode_msgpack([event])
        self.sync(agent, batches=(EventBatch(1, seq, 1, crc32(body), body),))

    def sync(self, agent: str, **parts: Any) -> None:
        first = agent not in self.known
        self.known.add(agent)
        request = SyncRequest(f"journal-{agent}", 1, "nonce", snapshot=first, **parts)
        outcome = self.database.run(lambda connection: sync_agent(connection, agent, request, self.clock.now_ms()))
        assert isinstance(outcome, Synced), outcome


@pytest.fixture
def use(acme: Any, database: Any, clock: Any) -> Sender:
    return Sender(database, clock)


def told(admin: Any, **query: Any) -> list[tuple[str, str, str, int]]:
    items = admin.get("/v1/notices", params={"customer": "acme", **query})["items"]
    return [
        (one["kind"].removeprefix("limit.threshold_"), one["body"]["limit"], one["body"]["scope_value"],
         one["body"]["percent"])
        for one in items
        if one["kind"].startswith("limit.")
    ]  # fmt: skip


def test_each_threshold_is_told_once_when_it_is_reached(acme: Any, use: Sender) -> None:
    use(499)
    assert told(acme) == []
    use(1)
    use(299)
    assert told(acme) == [("crossed", "tokens", "", 50)]
    use(201)
    use(5_000)
    assert told(acme) == [("crossed", "tokens", "", percent) for percent in (50, 80, 100)]
    last = acme.get("/v1/notices", params={"kind": "limit.threshold_crossed"})["items"][-1]
    assert (last["body"]["amount"], last["body"]["used"], last["body"]["window"]) == (1_000, 1_000, "day")


def test_every_scope_value_and_window_has_crossings_of_its_own(acme: Any, use: Sender, clock: Any) -> None:
    for user in ("ann", "bob"):
        for _ in range(4):
            use(0, user)
    assert told(acme) == [("crossed", "each", "ann", 75), ("crossed", "each", "bob", 75)]
    clock.advance(DAY_MS)
    for _ in range(3):
        use(0, "ann")
    assert told(acme)[2:] == [("crossed", "each", "ann", 75)]


def test_a_raised_amount_recovers_and_may_be_crossed_again(acme: Any, use: Sender) -> None:
    use(850)
    acme.put(PATH + "/overrides/more", {"limit": "tokens", "amount": 1_500, "reason": "asked"})
    assert told(acme)[2:] == [("recovered", "tokens", "", 80)]
    use(400)
    assert told(acme)[3:] == [("crossed", "tokens", "", 80)]
    acme.put(PATH + "/overrides/all", {"limit": "tokens", "unlimited": True, "reason": "asked"})
    assert sorted(told(acme)[4:]) == [("recovered", "tokens", "", 50), ("recovered", "tokens", "", 80)]
    acme.delete(PATH + "/overrides/all")
    acme.delete(PATH + "/overrides/more")
    assert told(acme)[6:] == [("crossed", "tokens", "", percent) for percent in (50, 80, 100)]


def test_a_correction_recovers_and_an_adjustment_crosses(acme: Any, use: Sender) -> None:
    use(600)
    acme.put(PATH + "/corrections/less", {"kind": "void", "event": "agent-1-1", "reason": "a test"})
    assert told(acme) == [("crossed", "tokens", "", 50), ("recovered", "tokens", "", 50)]
    acme.put(PATH + "/adjustments/known", {"limit": "tokens", "amount": 500, "reason": "used elsewhere"})
    assert told(acme)[2:] == [("crossed", "tokens", "", 50)]


def test_two_that_cross_at_the_same_time_tell_once(acme: Any, use: Sender) -> None:
    for agent in ("agent-1", "agent-2"):
        use(1, agent=agent)

    def many(agent: str) -> None:
        for _ in range(10):
            use(50, agent=agent)

    threads = [threading.Thread(target=many, args=(agent,)) for agent in ("agent-1", "agent-2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told(acme) == [("crossed", "tokens", "", percent) for percent in (50, 80, 100)]


def test_use_on_a_lease_counts_as_soon_as_its_holder_tells(acme: Any, use: Sender) -> None:
    counter = "*/input_tokens/day/customer"
    use.sync("agent-1", customers=(CustomerSync("acme", 0, asks=(Ask("lease-1", counter, "", 600, 1),)),))
    assert told(acme) == [], "what is lent is not used"
    use.sync("agent-1", leases=(LeaseReport("lease-1", cap=600, settled=499),))
    assert told(acme) == []
    use.sync("agent-1", leases=(LeaseReport("lease-1", cap=600, settled=500),))
    assert told(acme) == [("crossed", "tokens", "", 50)]
    use.sync("agent-1", leases=(LeaseReport("lease-1", cap=500, settled=500, closed=True),))
    assert told(acme) == [("crossed", "tokens", "", 50)]


def test_the_feed_tells_of_subscriptions_and_is_read_by_number(acme: Any, use: Sender, support: Any) -> None:
    acme.put("/v1/plans/max", {"name": "Max", "features": [{"feature": "chat"}], "limits": LIMITS})
    acme.put(PATH + "/subscription", {"plan": "max"})
    items = support.get("/v1/notices")["items"]
    changes = [(one["kind"], one["body"]["before"], one["body"]["after"]) for one in items]
    assert changes[-1] == (
        "subscription.plan_changed",
        {"plan": "pro@1", "add_ons": []},
        {"plan": "max@1", "add_ons": []},
    )
    assert [one["notice"] for one in items] == sorted(one["notice"] for one in items)
    assert support.get("/v1/notices", params={"after": items[-1]["notice"]})["items"] == []
    use(600)
    (new,) = support.get("/v1/notices", params={"after": items[-1]["notice"]})["items"]
    first = support.get("/v1/notices", params={"limit": 1})
    assert first["items"] == items[:1]
    rest = support.get("/v1/notices", params={"cursor": first["next_cursor"]})["items"]
    assert rest == [*items[1:], new]
    kinds = {one["kind"] for one in support.get("/v1/notice-kinds")}
    assert {one["kind"] for one in [*items, new]} <= kinds
    refused = support("GET", "/v1/notices", params={"kind": "limit.reset"})
    assert (refused.status_code, refused.json()["field"]) == (400, "kind")
