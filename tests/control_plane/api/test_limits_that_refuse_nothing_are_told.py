"""What passes a limit is shown with its price; what a limit in shadow would have refused is reported."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.overage import overage
from control_plane.core.plans import Price
from control_plane.operations.audit_books import check_books
from protocol.entitlements import Limit
from protocol.instants import rfc3339
from protocol.windows import WindowKind

PATH = "/v1/customers/acme"
LIMITS: list[dict[str, Any]] = [
    {
        "key": "tokens", "meter": "input_tokens", "amount": 1_000, "window": "month", "at_end": "overage",
        "overage_max": 10_000, "overage_price": {"micros": 2_500_000, "currency": "USD", "per": 1_000},
    },
    {"key": "calls", "meter": "requests", "amount": 3, "window": "day", "shadow": True},
    {"key": "each", "meter": "input_tokens", "amount": 700, "window": "day", "scope": "user", "shadow": True},
]  # fmt: skip


@pytest.fixture
def acme(admin: Any) -> Any:
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/plans/pro", {"name": "Pro", "features": [{"feature": "chat"}], "limits": LIMITS})
    admin.put(PATH, {"name": "Acme"})
    admin.put(PATH + "/subscription", {"plan": "pro"})
    return admin


def use(admin: Any, name: str, *calls: tuple[str, int], at_ms: int) -> None:
    """Calls that no lease paid: user and tokens."""
    events = [
        {
            "event": f"{name}-{at}", "feature": "chat", "at": rfc3339(at_ms + at),
            "amounts": {"input_tokens": tokens}, "subject": {"user": user},
        }
        for at, (user, tokens) in enumerate(calls)
    ]  # fmt: skip
    admin.put(f"{PATH}/backfills/{name}", {"events": events, "reason": "test"})


def test_what_passes_a_limit_is_shown_with_what_it_costs(acme: Any, clock: Any) -> None:
    def shown() -> Any:
        (item,) = [one for one in acme.get(PATH + "/balances")["items"] if one["limit"] == "tokens"]
        return item["overage"], item["overage_cost_micros"], item["overage_currency"]

    assert shown() == (0, 0, "USD")
    use(acme, "some", ("ann", 1_001), at_ms=clock.now_ms() - 10)
    assert shown() == (1, 2_500, "USD")
    use(acme, "more", ("ann", 2_000), at_ms=clock.now_ms() - 10)
    assert shown() == (2_001, 5_002_500, "USD")
    (calls,) = [one for one in acme.get(PATH + "/balances")["items"] if one["limit"] == "calls"]
    assert (calls["overage"], calls["overage_cost_micros"], calls["overage_currency"]) == (0, None, None)


@given(st.integers(0, 2**53), st.integers(0, 2**53), st.integers(0, 10**9), st.integers(1, 10**6))
def test_the_cost_is_rounded_up_once_and_never_below_what_was_used(
    amount: int, used: int, micros: int, per: int
) -> None:
    limit = Limit("l", "requests", amount, WindowKind.MONTH)
    found = overage(limit, Price(micros, "USD", per), used)
    assert found.quantity == max(0, used - amount)
    assert found.micros is not None
    assert 0 <= found.micros * per - found.quantity * micros < per


def test_a_limit_in_shadow_counts_what_it_would_have_refused(
    acme: Any, clock: Any, support: Any, database: Any
) -> None:
    at_ms = clock.now_ms() - 1_000
    assert support.get("/v1/shadow-report")["items"] == []
    use(acme, "first", ("ann", 400), ("ann", 300), ("bob", 701), at_ms=at_ms)
    use(acme, "second", ("ann", 1), ("bob", 5), at_ms=at_ms + 100)
    rows = support.get("/v1/shadow-report", params={"customer": "acme"})["items"]
    told = {(row["limit"], row["scope_value"]): (row["events"], row["quantity"]) for row in rows}
    assert told == {("calls", ""): (2, 2), ("each", "ann"): (1, 1), ("each", "bob"): (2, 706)}
    (bob,) = [row for row in rows if row["scope_value"] == "bob"]
    assert (bob["first_at"], bob["last_at"]) == (rfc3339(at_ms + 2), rfc3339(at_ms + 101))
    assert (bob["meter"], bob["window"], bob["customer"]) == ("input_tokens", "day", "acme")
    first = support.get("/v1/shadow-report", params={"limit": 2})
    rest = support.get("/v1/shadow-report", params={"limit": 2, "cursor": first["next_cursor"]})
    assert first["items"] + rest["items"] == rows
    assert support.get("/v1/shadow-report", params={"customer": "zoo"})["items"] == []
    acme.put(PATH + "/corrections/less", {"kind": "void", "event": "first-2", "reason": "test"})
    assert support.get("/v1/shadow-report")["items"] == rows, "it would have been refused all the same"
    assert database.read(check_books) == []
