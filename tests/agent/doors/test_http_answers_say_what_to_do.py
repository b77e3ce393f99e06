"""What an HTTP client can act on: status, Retry-After, RateLimit, x-should-retry, the error object of LLM clients."""

from __future__ import annotations

import pytest

from agent.core.books import PARKED_MAX
from protocol.entitlements import CustomerStatus, Limit, Scope
from protocol.windows import WindowKind

CALL = {"customer": "acme", "feature": "chat"}


def reserve(way, name: str, amount: int = 1, **fields):
    """The answer to one reserve, after as many exchanges and commits as it takes."""
    http = way.http()
    said = http.post("/v1/reserve", {"reservation": name, "call": CALL, "amounts": {"output_tokens": amount}, **fields})
    for _ in range(3):
        if said:
            break
        way.catch_up()
        said = http.responses()
    if not said:
        way.pass_time(1_100)
        way.catch_up()
        said = http.responses()
    if not said:
        way.pass_time(60_000)
        said = http.responses()
    (response,) = said
    return response


def settle(way, name: str, amount: int, **fields):
    http = way.http()
    said = http.post("/v1/settle", {"reservation": name, "amounts": {"output_tokens": amount}, **fields})
    way.bench.commit()
    (response,) = said or http.responses()
    return response


def test_allow_names_the_tightest_limit_in_a_header_proxies_understand(way) -> None:
    response = reserve(way, "r1", 30)
    assert response.status == 200
    said = response.json
    assert said["decision"] == "allow"
    assert said["has_access"] is True
    assert said["reservation"] == {
        "id": "r1",
        "expires_in_ms": 600_000,
        "amounts": {"requests": 1, "output_tokens": 30},
    }
    assert "id" not in said
    limit, remaining, reset = response.headers["ratelimit"].split(";")
    assert limit == f'"{said["limiting"]}"'
    assert remaining == f"r={said['remaining']}"
    assert reset.startswith("t=")
    assert "retry-after" not in response.headers


def test_spent_quota_is_402_and_tells_llm_clients_not_to_try_again(way) -> None:
    assert reserve(way, "r1", 1_000).status == 200
    settle(way, "r1", 1_000)
    response = reserve(way, "r2", 1)
    assert response.status == 402
    assert response.headers["x-should-retry"] == "false"
    assert "retry-after" not in response.headers
    said = response.json
    assert (said["code"], said["decision"], said["limiting"]) == ("usage_limit_reached", "block", "tokens-a-day")
    assert said["error"] == {
        "message": said["detail"],
        "type": "usage_limit_reached",
        "code": "usage_limit_reached",
        "param": None,
    }
    assert "tokens-a-day" in said["detail"]
    assert (said["amount"], said["remaining"]) == (1_000, 0)
    assert {state["limit"]: state["granted"] for state in said["breakdown"]} == {
        "tokens-a-day": False,
        "a-minute": True,
    }


def test_call_that_could_never_fit_is_402_with_what_would(way) -> None:
    response = reserve(way, "r1", 1_001)
    assert response.status == 402
    assert response.json["code"] == "requested_usage_exceeds_limit"
    assert "1001" in response.json["detail"]
    assert "1000" in response.json["detail"]


def test_throttle_is_429_and_says_in_whole_seconds_when_to_come_back(way) -> None:
    way.bench.entitle(*way.bench.lender.entitlements["acme"].limits, customer="fast")
    way.bench.lender.window_left_ms = 42_001
    for number in range(20):
        assert reserve(way, f"r{number}", 1, call={**CALL, "customer": "fast"}).status == 200
    response = reserve(way, "r20", 1, call={**CALL, "customer": "fast"})
    assert response.status == 429
    assert 40_000 < response.json["retry_after_ms"] <= 42_001
    seconds = -(-response.json["retry_after_ms"] // 1_000)
    assert response.headers["retry-after"] == str(seconds)
    assert response.headers["ratelimit"] == f'"a-minute";r=0;t={seconds}'
    assert "x-should-retry" not in response.headers


def test_throttle_says_when_even_as_its_window_ends(way) -> None:
    way.bench.lender.window_left_ms = 1
    for number in range(21):
        response = reserve(way, f"r{number}", 1)
        if response.status == 429:
            assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (CustomerStatus.PAUSED, "subscription_paused"),
        (CustomerStatus.CANCELLED, "no_active_subscription"),
        (CustomerStatus.ARCHIVED, "customer_archived"),
        (CustomerStatus.NO_SUBSCRIPTION, "no_active_subscription"),
    ],
)
def test_not_entitled_is_403_with_its_reason(way, status, code) -> None:
    from msgspec.structs import replace

    lender = way.bench.lender
    lender.entitlements["acme"] = replace(lender.entitlements["acme"], version=2, status=status)
    way.bench.books.look_again.add("acme")
    way.catch_up()
    response = reserve(way, "r1")
    assert (response.status, response.json["code"]) == (403, code)
    assert reserve(way, "r2", call={**CALL, "feature": "chat"}).json["policy_version"] == 2


def test_unknown_feature_and_customer_are_403(way) -> None:
    assert reserve(way, "r1", call={**CALL, "feature": "nope"}).json["code"] == "feature_not_found"
    response = reserve(way, "r2", call={**CALL, "customer": "nobody"})
    assert (response.status, response.json["code"]) == (403, "customer_not_found")


def test_undecided_is_503_at_once_when_nobody_can_be_asked(way) -> None:
    way.bench.books.uplink_down = True
    response = reserve(way, "r1", call={**CALL, "customer": "new"})
    assert (response.status, response.json["code"]) == (503, "lease_unavailable")
    assert response.headers["retry-after"] == "1"


def test_repeat_conflict_and_end_of_a_reservation_have_statuses_of_their_own(way) -> None:
    first = reserve(way, "r1", 5)
    assert reserve(way, "r1", 5).json["reservation"] == first.json["reservation"]
    assert (reserve(way, "r1", 6).status, reserve(way, "r1", 6).json["code"]) == (409, "reservation_conflict")
    assert settle(way, "r1", 5).json == {"event": "r1", "amounts": {"requests": 1, "output_tokens": 5}}
    assert settle(way, "r1", 5).json["duplicate"] is True
    assert settle(way, "r1", 7).json["corrects"] == "r1"
    assert (reserve(way, "r1", 5).status, reserve(way, "r1", 5).json["code"]) == (409, "reservation_ended")
    response = settle(way, "never", 5)
    assert (response.status, response.json["code"], response.json["field"]) == (
        404,
        "reservation_not_found",
        "reservation",
    )
    assert settle(way, "never", 5, call=CALL).status == 200


def test_what_the_disk_did_not_take_is_503_to_be_repeated(way) -> None:
    http = way.http()
    assert http.post("/v1/record", {"event": "e1", "call": CALL}) == []
    (pending,) = way.bench.books.pending.events
    for tell in pending.waiters:
        tell(False)
    (response,) = http.responses()
    assert (response.status, response.json["code"]) == (503, "not_recorded")
    assert response.headers["retry-after"] == "1"
    assert "same id" in response.json["detail"]


def test_too_many_waiting_calls_are_503(way) -> None:
    way.bench.books.parked = PARKED_MAX
    response = reserve(way, "r1", call={**CALL, "customer": "new"})
    assert (response.status, response.json["code"]) == (503, "overloaded")
    assert response.headers["retry-after"] == "1"


def test_usage_is_for_a_widget_and_status_for_an_operator(way) -> None:
    reserve(way, "r1", 30)
    way.bench.entitle(
        *way.bench.lender.entitlements["acme"].limits,
        Limit("per-user", "requests", 5, WindowKind.DAY, scope=Scope.USER),
        version=2,
    )
    way.bench.books.look_again.add("acme")
    way.catch_up()
    (response,) = way.http().get("/v1/usage?customer=acme&feature=chat&user=u1")
    assert response.status == 200
    said = response.json
    assert (said["customer"], said["plan"], said["status"], said["features"]) == (
        "acme",
        "pro@1",
        "active",
        {"chat": True},
    )
    states = {state["limit"]: state for state in said["limits"]}
    assert (states["tokens-a-day"]["usage"], states["tokens-a-day"]["remaining"]) == (30, 970)
    assert (states["per-user"]["scope"], states["per-user"]["scope_value"], states["per-user"]["remaining"]) == (
        "user",
        "u1",
        5,
    )
    http = way.http()
    assert http.get("/v1/usage?customer=nobody") == []
    way.catch_up()
    (late,) = http.responses()
    assert (late.status, late.json["code"], late.json["field"]) == (404, "customer_not_found", "customer")
    way.bench.books.uplink_down = True
    (response,) = way.http().get("/v1/usage?customer=unheard-of")
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    (status,) = way.http().get("/v1/status")
    assert (status.json["agent"], status.json["reservations"]) == ("agent-1", 1)
    assert status.json["counters"]["allowed"] >= 1


def test_readiness_is_503_until_the_agent_can_decide_and_health_is_not(way) -> None:
    way.ready = False
    assert [r.status for r in way.http().get("/readyz") + way.http().get("/healthz")] == [503, 200]
    way.ready = True
    assert way.http().get("/readyz")[0].json == {"status": "ok"}
