"""A closed billing period has a statement that never changes; what comes later is an adjustment in the next."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest

from control_plane.operations.audit_books import check_books
from control_plane.operations.sync_agent import Synced, sync_agent
from protocol.codec import encode_msgpack
from protocol.events import EventBatch, UsageEvent
from protocol.instants import rfc3339
from protocol.uplink_messages import Ask, CustomerSync, SyncRequest
from protocol.windows import Calendar, WindowKind, window_at

DAY_MS = 86_400_000
PATH = "/v1/customers/acme"
LIMITS: list[dict[str, Any]] = [
    {
        "key": "tokens", "meter": "input_tokens", "amount": 1_000, "window": "billing_period", "at_end": "overage",
        "overage_max": 100_000, "overage_price": {"micros": 3, "currency": "USD", "per": 2},
    },
    {"key": "daily", "meter": "requests", "amount": 2, "window": "day", "at_end": "overage", "overage_max": 9},
    {"key": "credits", "meter": "credits", "amount": 0, "window": "grants"},
]  # fmt: skip
RATE = {"meter": "credits", "weights": {"input_tokens": 1_000_000}}


class Period:
    """A customer whose billing periods begin now, and an agent whose events no lease paid."""

    def __init__(self, admin: Any, database: Any, clock: Any) -> None:
        self.admin, self.database, self.clock = admin, database, clock
        self.start_ms = clock.now_ms()
        self.seq = 0

    def use(self, name: str, tokens: int, at_ms: int | None = None) -> None:
        at_ms = self.clock.now_ms() if at_ms is None else at_ms
        amounts = {"requests": 1, "input_tokens": tokens, "credits": tokens}
        event = UsageEvent(name, "acme", "chat", at_ms, amounts, derived=("credits",))
        body = encode_msgpack([event])
        self.seq += 1
        self.sync(batches=(EventBatch(1, self.seq, 1, crc32(body), body),))

    def sync(self, **parts: Any) -> None:
        request = SyncRequest("journal-1", 1, "nonce", snapshot=self.seq <= 1, **parts)
        outcome = self.database.run(lambda connection: sync_agent(connection, "agent-1", request, self.clock.now_ms()))
        assert isinstance(outcome, Synced), outcome

    def get(self, start_ms: int | None = None) -> Any:
        start = rfc3339(self.start_ms if start_ms is None else start_ms)
        return self.admin.get(f"{PATH}/periods/{start}")

    def close(self, start_ms: int | None = None) -> Any:
        start = rfc3339(self.start_ms if start_ms is None else start_ms)
        return self.admin("POST", f"{PATH}/periods/{start}/close", json={})

    @property
    def next_ms(self) -> int:
        return self.after(self.start_ms)

    def after(self, start_ms: int) -> int:
        return window_at(WindowKind.BILLING_PERIOD, start_ms, Calendar(self.start_ms)).end_ms


@pytest.fixture
def period(admin: Any, database: Any, clock: Any) -> Period:
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/meters/credits", {"unit": "credits"})
    plan = {"name": "Pro", "features": [{"feature": "chat"}], "limits": LIMITS, "rates": [RATE]}
    admin.put("/v1/plans/pro", plan)
    admin.put(PATH, {"name": "Acme"})
    admin.put(PATH + "/subscription", {"plan": "pro"})
    admin.put(PATH + "/grants/top-up", {"meter": "credits", "amount": 50_000, "reason": "bought"})
    return Period(admin, database, clock)


def quantities(statement: Any) -> dict[str, int]:
    return {line["meter"]: line["quantity"] for line in statement["usage"]}


def test_a_statement_says_what_was_used_what_passed_and_what_it_costs(period: Period) -> None:
    for at in range(3):
        period.use(f"call-{at}", 501)
    draft = period.get()
    assert draft["closed_at"] is None
    assert quantities(draft["statement"]) == {"requests": 3, "input_tokens": 1_503, "credits": 1_503}
    period.clock.set(period.next_ms)
    closed = period.close().json()
    statement = closed["statement"]
    assert (statement["start"], statement["end"]) == (rfc3339(period.start_ms), rfc3339(period.next_ms))
    assert statement["plan"] == "pro@1"
    over = {line["limit"]: (line["used"], line["overage"], line["cost_micros"]) for line in statement["overage"]}
    assert over == {"tokens": (1_503, 503, 755), "daily": (3, 1, None)}
    assert statement["overage_total"] == [{"currency": "USD", "micros": 755}]
    assert statement["credits"] == [{"meter": "credits", "burned": 1_503}]
    assert period.close().json() == closed, "said again, nothing changes"
    assert period.admin.get(PATH + "/periods")["items"] == [closed]
    (notice,) = period.admin.get("/v1/notices", params={"kind": "billing_period.closed"})["items"]
    assert notice["body"]["overage_total"] == statement["overage_total"]
    log = period.admin.get("/v1/audit-log", params={"customer": "acme"})["items"]
    assert [one["action"] for one in log].count("billing_period.close") == 1


def test_what_comes_after_the_close_is_an_adjustment_in_the_next_period(period: Period) -> None:
    first_ms = period.start_ms
    period.use("call-1", 700)
    period.clock.set(period.next_ms + DAY_MS)
    frozen = period.close().json()
    period.use("late", 400, at_ms=first_ms + 5_000)
    missed = {"event": "missed", "feature": "chat", "at": rfc3339(first_ms + 9), "amounts": {"input_tokens": 50}}
    period.admin.put(PATH + "/backfills/more", {"events": [missed], "reason": "an outage"})
    period.admin.put(PATH + "/corrections/never", {"kind": "void", "event": "call-1", "reason": "a test"})
    period.use("new", 10)
    assert period.get() == frozen
    draft = period.get(period.next_ms)["statement"]
    assert quantities(draft) == {"requests": 2, "input_tokens": -240, "credits": -240}
    told = {one["event"]: (one["happened_at"], one["amounts"]["input_tokens"]) for one in draft["adjustments"]}
    assert told == {
        "late": (rfc3339(first_ms + 5_000), 400),
        "missed": (rfc3339(first_ms + 9), 50),
        "by-hand~never": (rfc3339(first_ms), -700),
    }
    assert draft["adjustments_count"] == 3
    (tokens,) = [one for one in period.admin.get(PATH + "/balances")["items"] if one["limit"] == "tokens"]
    assert tokens["used"] == -240
    assert period.admin.get(PATH + "/credits")[0]["remaining"] == 50_000 - 460
    assert period.database.read(check_books) == []


def test_periods_are_closed_when_they_are_over_and_in_order(period: Period) -> None:
    def refused(start_ms: int | None = None) -> tuple[int, str]:
        answer = period.close(start_ms)
        return answer.status_code, answer.json()["code"]

    second_ms = period.next_ms
    assert refused() == (409, "period_not_over")
    assert refused(period.start_ms + 1) == (400, "invalid_request")
    assert refused(second_ms) == (400, "invalid_request")
    period.clock.set(second_ms + 70 * DAY_MS)
    assert period.close().status_code == 200
    assert refused(period.after(second_ms)) == (409, "period_out_of_order")
    assert period.close(second_ms).status_code == 200
    answer = period.admin("POST", f"{PATH}/periods/yesterday/close", json={})
    assert (answer.status_code, answer.json()["field"]) == (400, "start")
    assert period.admin("GET", "/v1/customers/nobody/periods").status_code == 404


def test_a_period_waits_for_leases_of_its_windows(period: Period) -> None:
    ask = Ask("lease-1", "*/input_tokens/billing_period/customer", "", 100, 1)
    period.sync(customers=(CustomerSync("acme", 0, asks=(ask,)),))
    period.clock.set(period.next_ms)
    answer = period.close()
    assert (answer.status_code, answer.json()["code"]) == (409, "period_has_leases")


def test_a_support_token_reads_statements_and_closes_nothing(period: Period, support: Any) -> None:
    start = rfc3339(period.start_ms)
    assert support("GET", f"{PATH}/periods/{start}").status_code == 200
    assert support("POST", f"{PATH}/periods/{start}/close", json={}).status_code == 403


def test_calls_of_a_closed_period_that_are_priced_again_are_adjusted_in_the_next(
    admin: Any, database: Any, clock: Any
) -> None:
    def book(price: int) -> dict[str, Any]:
        return {"currency": "USD", "overrides": [{"model": "haiku", "tokens": {"input": price * 1_000_000}}]}

    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/meters/cost_micros", {"unit": "micro-USD"})
    admin.put("/v1/price-books/standard", book(3))
    budget = {"key": "budget", "meter": "cost_micros", "amount": 10**9, "window": "billing_period"}
    uses = [{"book": "standard", "models": ["haiku"]}]
    plan = {"name": "Pro", "features": [{"feature": "chat"}], "limits": [budget], "price_books": uses}
    admin.put("/v1/plans/pro", plan)
    admin.put(PATH, {"name": "Acme"})
    admin.put(PATH + "/subscription", {"plan": "pro"})
    period = Period(admin, database, clock)
    call = {"feature": "chat", "at": rfc3339(period.start_ms), "tokens": {"input": 100}, "model": "haiku"}
    admin.put(PATH + "/backfills/one", {"events": [{"event": "call-1", **call}], "reason": "test"})
    clock.set(period.next_ms)
    frozen = period.close().json()
    assert quantities(frozen["statement"])["cost_micros"] == 300
    admin.put("/v1/price-books/standard", book(2))
    span = {"from": rfc3339(period.start_ms), "to": rfc3339(period.next_ms)}
    order = {"book": "standard", "version": 2, "customer": "acme", "reason": "cheaper", **span}
    shown = admin.put("/v1/reratings/cheaper", order)
    done = admin.put("/v1/reratings/cheaper", {**order, "apply": True})
    assert [(one["moved"], one["corrected"], one["closed"]) for one in (shown, done)] == [(1, 0, 1), (1, 1, 1)]
    assert admin.put("/v1/reratings/cheaper", {**order, "apply": True})["corrected"] == 0
    assert period.get() == frozen
    draft = period.get(period.next_ms)["statement"]
    assert quantities(draft) == {"cost_micros": -100}
    assert [one["amounts"] for one in draft["adjustments"]] == [{"cost_micros": -100}]
    fixed = {"kind": "amend", "event": "call-1", "tokens": {"input": 10}, "reason": "test"}
    admin.put(PATH + "/corrections/fix", fixed)
    assert quantities(period.get(period.next_ms)["statement"])["cost_micros"] == 20 - 300, "by the newer price"
    assert database.read(check_books) == []
