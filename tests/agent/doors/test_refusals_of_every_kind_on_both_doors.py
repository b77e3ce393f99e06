"""Each kind of limit refuses in the same words on both doors: decision, status, when to come back, and whose it is."""

from __future__ import annotations

import pytest

from protocol.entitlements import InFlight, Limit, LimitEnd, Rate, Scope
from protocol.windows import WindowKind

CALL = {"customer": "every", "feature": "chat", "subject": {"user": "ann", "api_key": "k1"}, "tags": {"team": "blue"}}

SLOTS = Limit("parallel", "requests", 2, WindowKind.IN_FLIGHT)
RATE = Limit("tokens-a-minute", "output_tokens", 600, WindowKind.MINUTE, smooth=True, burst=50)
QUOTA = Limit("tokens-a-month", "output_tokens", 50, WindowKind.MONTH)
THROTTLE = Limit("a-day", "output_tokens", 50, WindowKind.DAY, at_end=LimitEnd.THROTTLE)
FLOOR = Limit("kept", "output_tokens", 80, WindowKind.MONTH, batch_floor=45)
FINISH = Limit("finish", "output_tokens", 50, WindowKind.MONTH, in_flight=InFlight.FINISH, overage_max=10)
POOL = Limit("pool", "credits", 26, WindowKind.LIFETIME)
TEAM = Limit("of-team", "output_tokens", 50, WindowKind.MONTH, scope=Scope.TAG, scope_tag="team")
KEYS = Limit("of-key", "output_tokens", 50, WindowKind.MONTH, scope=Scope.API_KEY)
HALF = (Rate("credits", {"output_tokens": 500_000}),)

REFUSALS = [
    pytest.param(
        SLOTS, 1, "interactive", "throttle", "rate_limited", 429, "1",
        "2 of 2 calls in flight (limit 'parallel'); try again when one has ended.", id="slots",
    ),
    pytest.param(
        RATE, 25, "interactive", "throttle", "rate_limited", 429, "3",
        "Limit 'tokens-a-minute' allows 600 output_tokens a minute, evenly, and 50 at once; this call needs 25:"
        " try again in 2.5 s.", id="rate",
    ),
    pytest.param(
        QUOTA, 25, "interactive", "block", "usage_limit_reached", 402, None,
        "Limit 'tokens-a-month' has 0 of 50 output_tokens left, this call needs 25; it resets at", id="quota",
    ),
    pytest.param(
        THROTTLE, 25, "interactive", "throttle", "rate_limited", 429, "3600",
        "Limit 'a-day' has 0 of 50 output_tokens left, this call needs 25; it resets at", id="throttle",
    ),
    pytest.param(
        FLOOR, 25, "batch", "block", "usage_limit_reached", 402, None,
        "Limit 'kept' has 5 of 80 output_tokens left and keeps 45 for interactive calls; this call of priority batch"
        " needs 25.", id="floor",
    ),
    pytest.param(
        FINISH, 25, "interactive", "block", "usage_limit_reached", 402, None,
        "Limit 'finish' has 0 of 50 output_tokens left, this call needs 25", id="finish",
    ),
    pytest.param(
        POOL, 25, "interactive", "block", "usage_limit_reached", 402, None,
        "Limit 'pool' has 0 of 26 credits left, this call needs 13", id="pool",
    ),
    pytest.param(
        TEAM, 25, "interactive", "block", "usage_limit_reached", 402, None,
        "Limit 'of-team' of tag team 'blue' has 0 of 50 output_tokens left, this call needs 25", id="tag",
    ),
    pytest.param(
        KEYS, 25, "interactive", "block", "usage_limit_reached", 402, None,
        "Limit 'of-key' of api_key 'k1' has 0 of 50 output_tokens left, this call needs 25", id="api-key",
    ),
    pytest.param(
        RATE, 51, "interactive", "block", "requested_usage_exceeds_limit", 402, None,
        "This call asks for 51 output_tokens; limit 'tokens-a-minute' allows at most 50 at once.", id="rate-too-big",
    ),
    pytest.param(
        FINISH, 51, "interactive", "block", "requested_usage_exceeds_limit", 402, None,
        "This call asks for 51 output_tokens; limit 'finish' allows at most 50 a month.", id="finish-too-big",
    ),
]  # fmt: skip


def body(name: str, amount: int, priority: str = "interactive") -> dict:
    return {
        "reservation": name, "call": CALL, "amounts": {"output_tokens": amount}, "deadline_ms": 0, "priority": priority,
    }  # fmt: skip


def caught_up(way, said: dict):
    """The answer once leases and journal have had their time."""
    for _ in range(4):
        way.frames().send({"op": "reserve", **said})
        way.catch_up()
    (reply,) = way.frames().send({"op": "reserve", **said})
    return reply


def use_it_up(way, limit) -> None:
    """Two calls of 25 hold all that there is; the last word of the control plane is that there is no more."""
    way.bench.lender.retry_in_ms = 60_000
    way.bench.entitle(limit, customer="every", rates=HALF if limit.meter == "credits" else ())
    way.bench.books.customer("every").entitle(way.bench.lender.entitlements["every"], way.bench.now_ms)
    for name in ("a", "b"):
        assert caught_up(way, body(name, 25)).has_access
    for patience in (1, 0):
        way.frames().send({"op": "reserve", **body("c", 25), "deadline_ms": patience})
        way.catch_up()
    way.pass_time(0)


@pytest.mark.parametrize(
    ("limit", "amount", "priority", "decision", "code", "status", "retry_after", "words"), REFUSALS
)
def test_refusal_is_the_same_on_both_doors(
    way, limit, amount, priority, decision, code, status, retry_after, words
) -> None:
    use_it_up(way, limit)
    (on_frames,) = way.frames().send({"op": "reserve", **body("x", amount, priority)})
    (on_http,) = way.http().post("/v1/reserve", body("y", amount, priority))
    assert (on_frames.decision, on_frames.code, on_frames.limiting) == (decision, code, limit.key)
    assert words in on_frames.message
    problem = on_http.json
    assert (problem["code"], problem["detail"], problem["limiting"]) == (code, on_frames.message, limit.key)
    assert problem["error"]["message"] == on_frames.message
    assert on_http.status == status
    assert on_http.headers.get("retry-after") == retry_after
    assert (on_http.headers.get("x-should-retry") == "false") == (status == 402)
    assert on_http.headers["ratelimit"].startswith(f'"{limit.key}";r=')
    state = next(state for state in problem["breakdown"] if state["limit"] == limit.key)
    assert state["granted"] is False
    assert state.get("scope_value", "") == {"tag": "blue", "api_key": "k1"}.get(limit.scope.value, "")


def test_extension_that_finds_no_room_tells_both_to_stop_the_stream(way) -> None:
    use_it_up(way, QUOTA)
    more = {"reservation": "a", "amounts": {"output_tokens": 26}}
    way.frames().send({"op": "extend", **more})  # there may be something for so little
    way.catch_up()
    (on_frames,) = way.frames().send({"op": "extend", **more})
    (on_http,) = way.http().post("/v1/extend", more)
    assert on_frames.message.endswith("This call gets no more: end its stream and settle what it used.")
    assert (on_http.status, on_http.json["detail"]) == (402, on_frames.message)


def test_derived_meter_is_refused_by_its_field(way) -> None:
    use_it_up(way, POOL)
    said = {**body("x", 1), "amounts": {"credits": 1}}
    (on_frames,) = way.frames().send({"op": "reserve", **said})
    (on_http,) = way.http().post("/v1/reserve", said)
    assert (on_frames.error.code, on_frames.error.field) == ("invalid_request", "amounts.credits")
    assert (on_http.status, on_http.json["field"]) == (400, "amounts.credits")


def test_priority_that_is_none_is_refused_with_the_choices(way) -> None:
    (reply,) = way.frames().send({"op": "reserve", **body("x", 1, "urgent")})
    assert reply.error.field == "priority"
    (response,) = way.http().post("/v1/check", {"call": CALL, "priority": "urgent"})
    assert response.status == 400
    assert b"interactive" in response.body


def test_usage_is_told_for_every_kind_and_whose_counters_are_meant(way) -> None:
    way.bench.entitle(SLOTS, RATE, TEAM, KEYS, FINISH, POOL, customer="every", rates=HALF)
    assert caught_up(way, body("a", 20)).has_access
    (response,) = way.http().get("/v1/usage?customer=every&user=ann&api_key=k1&tags.team=blue")
    limits = {state["limit"]: state for state in response.json["limits"]}
    assert {name: (state.get("usage", 0), state["remaining"]) for name, state in limits.items()} == {
        "parallel": (1, 1),
        "tokens-a-minute": (20, 30),
        "of-team": (20, 30),
        "of-key": (20, 30),
        "finish": (20, 30),
        "pool": (10, 16),
    }
    assert limits["of-team"]["scope_value"] == "blue"
    assert "resets_at" not in limits["parallel"]
    (report,) = way.frames().send(
        {"op": "usage", "customer": "every", "api_key": "k2", "tags": {"team": "red"}, "workspace": "w"}
    )
    assert {state.limit: state.usage for state in report.limits if state.scope_value} == {"of-team": 0, "of-key": 0}
    (response,) = way.http().get("/v1/usage?customer=every&tags.team=%20")
    assert response.status == 400
    assert response.json["field"].startswith("tags")
