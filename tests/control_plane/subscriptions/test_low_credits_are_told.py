"""Credits that run low are told once for each threshold of the balance, and again only after they have recovered."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.operations.keep_entitlements import keep_due
from protocol.instants import rfc3339

DAY_MS = 86_400_000
PATH = "/v1/customers/acme"
BALANCE = {"key": "credits", "meter": "credits", "amount": 0, "window": "grants", "thresholds": [50, 80, 100]}
RATE = {"meter": "credits", "weights": {"input_tokens": 1_000_000}}


class Acme:
    """A customer whose input tokens burn a credit each."""

    def __init__(self, admin: Any, database: Any, clock: Any) -> None:
        self.admin, self.database, self.clock = admin, database, clock
        self.calls = 0
        admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
        admin.put("/v1/meters/credits", {"unit": "credit"})
        self.publish(BALANCE)
        admin.put(PATH, {"name": "Acme"})
        admin.put(PATH + "/subscription", {"plan": "pro"})

    def publish(self, balance: dict[str, Any]) -> None:
        plan = {"name": "Pro", "features": [{"feature": "chat"}], "limits": [balance], "rates": [RATE]}
        self.admin.put("/v1/plans/pro", plan)

    def grant(self, name: str, amount: int, days: int | None = None) -> None:
        until = None if days is None else rfc3339(self.clock.now_ms() + days * DAY_MS)
        ends = {} if until is None else {"expires_at": until}
        self.admin.put(f"{PATH}/grants/{name}", {"meter": "credits", "amount": amount, "reason": "test", **ends})

    def use(self, tokens: int) -> str:
        self.calls += 1
        name = f"call-{self.calls}"
        event = {"event": name, "feature": "chat", "at": rfc3339(self.clock.now_ms()), "tokens": {"input": tokens}}
        self.admin.put(f"{PATH}/backfills/{name}", {"events": [event], "reason": "test"})
        return name

    def wait(self, days: int) -> None:
        self.clock.advance(days * DAY_MS)
        while self.database.run(lambda connection: keep_due(connection, self.clock.now_ms())):
            pass

    def told(self) -> list[tuple[str, int, int, int]]:
        items = self.admin.get("/v1/notices", params={"customer": "acme"})["items"]
        return [
            (one["kind"], one["body"]["percent"], one["body"]["granted"], one["body"]["left"])
            for one in items
            if one["kind"].startswith("credits.")
        ]


@pytest.fixture
def acme(admin: Any, database: Any, clock: Any) -> Acme:
    return Acme(admin, database, clock)


def test_each_threshold_is_told_once(acme: Acme) -> None:
    assert acme.told() == [], "who never had any is not told"
    acme.grant("first", 1_000)
    acme.use(499)
    assert acme.told() == []
    acme.use(1)
    acme.use(10)
    assert acme.told() == [("credits.low", 50, 1_000, 500)]
    acme.use(490)
    assert acme.told()[1:] == [("credits.low", 80, 1_000, 0), ("credits.low", 100, 1_000, 0)]


def test_more_credit_recovers_and_may_run_low_again(acme: Acme) -> None:
    acme.grant("first", 1_000)
    acme.use(800)
    acme.grant("top-up", 1_000)
    assert acme.told() == [
        ("credits.low", 50, 1_000, 200),
        ("credits.low", 80, 1_000, 200),
        ("credits.recovered", 50, 2_000, 1_200),
        ("credits.recovered", 80, 2_000, 1_200),
    ]
    acme.use(300)
    assert acme.told()[4:] == [("credits.low", 50, 2_000, 900)]


def test_what_is_given_back_recovers(acme: Acme) -> None:
    acme.grant("first", 100)
    name = acme.use(60)
    acme.admin.put(f"{PATH}/corrections/void-{name}", {"kind": "void", "event": name, "reason": "a test"})
    assert acme.told() == [("credits.low", 50, 100, 40), ("credits.recovered", 50, 100, 100)]


def test_credits_that_end_leave_nothing(acme: Acme) -> None:
    acme.grant("promo", 100, days=3)
    acme.use(55)
    acme.wait(4)
    assert acme.told() == [
        ("credits.low", 50, 100, 45),
        ("credits.low", 80, 0, 0),
        ("credits.low", 100, 0, 0),
    ]


def test_a_burned_grant_that_ends_says_nothing_of_those_that_stay(acme: Acme) -> None:
    acme.grant("promo", 100, days=3)
    acme.grant("bought", 100)
    acme.use(100)
    acme.wait(4)
    assert acme.told() == [("credits.low", 50, 200, 100), ("credits.recovered", 50, 100, 100)]
    acme.use(50)
    assert acme.told()[2:] == [("credits.low", 50, 100, 50)]


def test_what_comes_with_each_period_starts_again(acme: Acme) -> None:
    included = {"key": "included", "meter": "credits", "amount": 100, "rollover_max": 20}
    plan = {"name": "Pro", "features": [{"feature": "chat"}], "limits": [BALANCE], "rates": [RATE]}
    acme.admin.put("/v1/plans/pro", {**plan, "grants": [included]})
    acme.admin.put(PATH + "/subscription", {"plan": "pro", "version": 2})
    acme.use(90)
    acme.wait(31)
    assert acme.told() == [
        ("credits.low", 50, 100, 10),
        ("credits.low", 80, 100, 10),
        ("credits.recovered", 50, 110, 110),
        ("credits.recovered", 80, 110, 110),
    ]


def test_a_balance_may_be_overdrawn_by_thresholds_beyond_a_hundred(acme: Acme) -> None:
    acme.publish({**BALANCE, "at_end": "overage", "overage_max": 1_000, "thresholds": [100, 150]})
    acme.admin.put(PATH + "/subscription", {"plan": "pro", "version": 2})
    acme.grant("first", 100)
    acme.use(150)
    assert acme.told() == [("credits.low", 100, 100, 0), ("credits.low", 150, 100, 0)]
    kinds = {one["kind"] for one in acme.admin.get("/v1/notice-kinds")}
    assert {"credits.low", "credits.recovered"} <= kinds
