"""A credit feature is on only where its calls burn a balance; what lacks that is refused, and told what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.core.catalog import compose_plan
from control_plane.core.plans import Bundle, PlanFeature, PlanLimit
from protocol.entitlements import Feature, FeatureKind, Rate, RoleTerms
from protocol.violations import Violation
from protocol.windows import WindowKind

KINDS = {"voice": FeatureKind.CREDIT, "chat": FeatureKind.METERED}
METERS = {"credits", "points", "seconds"}
POOL = PlanLimit("pool", "credits", 0, WindowKind.GRANTS)
RATE = Rate("credits", {"seconds": 1_000_000}, "voice")
VOICE = (PlanFeature("voice"),)


def refusal(bundle: Bundle) -> Violation:
    with pytest.raises(Violation) as caught:
        compose_plan(bundle, KINDS, METERS)
    return caught.value


@pytest.mark.parametrize(
    "rate",
    [RATE, Rate("credits", {"seconds": 1}), Rate("credits", {"seconds": 1}, "voice", "whisper")],
    ids=["of the feature", "of all features", "of one model: calls of others are refused"],
)
def test_a_balance_and_a_price_are_enough(rate: Rate) -> None:
    body = compose_plan(Bundle(VOICE, (POOL,), (rate,)), KINDS, METERS)
    assert body.features == (Feature("voice", FeatureKind.CREDIT),)


@pytest.mark.parametrize(
    ("limits", "rates", "missing"),
    [
        ((), (RATE,), "no balance is on the path"),
        ((PlanLimit("month", "credits", 9, WindowKind.MONTH),), (RATE,), "no balance is on the path"),
        ((PlanLimit("pool", "credits", 0, WindowKind.GRANTS, shadow=True),), (RATE,), "no balance is on the path"),
        ((POOL,), (), "nothing makes 'credits' of its calls"),
        ((POOL,), (Rate("credits", {"seconds": 1}, "chat"),), "nothing makes 'credits' of its calls"),
        ((POOL,), (Rate("points", {"seconds": 1}, "voice"),), "nothing makes 'credits' of its calls"),
    ],
)
def test_what_is_missing_is_named(limits: tuple[PlanLimit, ...], rates: tuple[Rate, ...], missing: str) -> None:
    wrong = refusal(Bundle(VOICE, limits, rates))
    assert (wrong.field, "'voice'" in wrong.problem) == ("features[0]", True)
    assert missing in wrong.problem
    assert "credits" in wrong.expected


def test_it_must_be_on_for_somebody_to_need_a_balance() -> None:
    off = PlanFeature("voice", enabled=False)
    assert compose_plan(Bundle((off,)), KINDS, METERS).features[0].enabled is False
    for_one_role = PlanFeature("voice", enabled=False, by_role={"lead": RoleTerms()})
    assert refusal(Bundle((for_one_role,))).field == "features[0]"


POOL_JSON = {"key": "pool", "meter": "credits", "amount": 0, "window": "grants"}
RATE_JSON = {"meter": "credits", "feature": "voice", "weights": {"requests": 3_000_000}}
WHOLE = {"name": "Voice", "features": [{"feature": "voice"}], "limits": [POOL_JSON], "rates": [RATE_JSON]}
PLAIN = {"name": "Plain", "features": [{"feature": "voice", "enabled": False}]}


@pytest.fixture
def api(admin: Any) -> Any:
    admin.put("/v1/meters/credits", {"unit": "credit"})
    admin.put("/v1/features/voice", {"name": "Voice", "kind": "credit"})
    admin.put("/v1/customers/acme", {"name": "Acme"})
    return admin


def test_an_add_on_brings_its_own_price_and_shares_the_plans_balance(api: Any, allotment: Any) -> None:
    refused = api("PUT", "/v1/add-ons/voice", json={**WHOLE, "limits": []})
    assert (refused.status_code, refused.json()["field"]) == (400, "features[0]")
    api.put("/v1/plans/pro", {"name": "Pro", "limits": [{**POOL_JSON, "key": "credits"}]})
    api.put("/v1/add-ons/voice", WHOLE)
    api.put("/v1/customers/acme/subscription", {"plan": "pro", "add_ons": [{"add_on": "voice"}]})
    explained = api.get("/v1/customers/acme/explain?feature=voice")
    assert (explained["code"], explained["limiting"]) == ("requested_usage_exceeds_limit", "credits")
    assert explained["balances"] == ["credits"]
    grant = {"meter": "credits", "amount": 5, "reason": "pilot"}
    api.put("/v1/customers/acme/grants/g1", grant)
    said = allotment("explain", "acme", "voice").output
    assert "ALLOW" in said
    assert "Feature voice (credit): on; its calls burn credits; from add_on:voice@1." in said


def test_what_is_combined_may_not_make_it_free_either(api: Any) -> None:
    api.put("/v1/plans/trial", {"name": "Trial", "limits": [{**POOL_JSON, "shadow": True}]})
    api.put("/v1/add-ons/voice", WHOLE)
    refused = api("PUT", "/v1/customers/acme/subscription", json={"plan": "trial", "add_ons": [{"add_on": "voice"}]})
    assert (refused.status_code, refused.json()["field"]) == (400, "add_ons")
    assert "no balance is on the path" in refused.json()["detail"]


def test_an_override_may_not_switch_it_on_without_a_balance(api: Any) -> None:
    api.put("/v1/plans/plain", PLAIN)
    api.put("/v1/customers/acme/subscription", {"plan": "plain"})
    wanted = {"feature": "voice", "enabled": True, "reason": "pilot"}
    refused = api("PUT", "/v1/customers/acme/overrides/pilot", json=wanted)
    assert (refused.status_code, refused.json()["field"]) == (400, "enabled")
    assert api.get("/v1/customers/acme/overrides")["items"] == []
    api.put("/v1/plans/plain", {**PLAIN, "limits": [POOL_JSON], "rates": [RATE_JSON]})
    api.put("/v1/customers/acme/subscription", {"plan": "plain", "version": 2})
    assert api.put("/v1/customers/acme/overrides/pilot", wanted)["status"] == "active"


def test_metered_features_may_still_be_free(api: Any) -> None:
    api.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    api.put("/v1/plans/free", {"name": "Free", "features": [{"feature": "chat"}]})
    api.put("/v1/customers/acme/subscription", {"plan": "free"})
    assert api.get("/v1/customers/acme/explain?feature=chat")["balances"] == []
