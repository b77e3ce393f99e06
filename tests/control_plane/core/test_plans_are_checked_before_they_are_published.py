"""A plan that breaks a rule of the catalog is refused, and the refusal names the field."""

from __future__ import annotations

import msgspec
import pytest

from control_plane.core.catalog import compose_plan, decode_plan, encode_plan
from control_plane.core.plans import Bundle, PlanFeature, PlanGrant, PlanLimit, Price
from protocol.entitlements import (
    FEATURES_MAX,
    LIMITS_MAX,
    RATES_MAX,
    FeatureKind,
    InFlight,
    LimitEnd,
    Rate,
    Scope,
)
from protocol.units import QUANTITY_MAX
from protocol.violations import Violation
from protocol.windows import WindowKind

KINDS = {"chat": FeatureKind.METERED, "sso": FeatureKind.BOOLEAN, "model": FeatureKind.STATIC}
METERS = {"images", "credits", "points"}
DAY = PlanLimit("a", "images", 10, WindowKind.DAY)


def change(**fields: object) -> PlanLimit:
    return msgspec.structs.replace(DAY, **fields)


def refusal(
    features: tuple[PlanFeature, ...] = (), limits: tuple[PlanLimit, ...] = (), rates: tuple[Rate, ...] = ()
) -> str:
    with pytest.raises(Violation) as caught:
        compose_plan(Bundle(features, limits, rates), KINDS, METERS)
    return caught.value.field


def test_a_plan_that_keeps_the_rules_is_composed_and_survives_storage() -> None:
    features = (PlanFeature("chat"), PlanFeature("sso", enabled=False), PlanFeature("model", value="large"))
    limits = (
        DAY,
        change(key="b", window=WindowKind.REQUEST, amount=0),
        change(key="c", meter="requests", at_end=LimitEnd.OVERAGE, overage_max=5),
        change(key="d", scope=Scope.USER, amount=None, feature="chat"),
        change(key="e", scope=Scope.TAG, scope_tag="team"),
        change(key="f", window=WindowKind.IN_FLIGHT, at_end=LimitEnd.THROTTLE, batch_floor=3),
        change(key="g", window=WindowKind.MINUTE, smooth=True, burst=2, at_end=LimitEnd.THROTTLE),
        change(key="h", window=WindowKind.MONTH, in_flight=InFlight.FINISH, overage_max=5),
        change(key="i", meter="credits"),
    )
    rates = (Rate("credits", {"images": 2_500_000}), Rate("credits", {"requests": 1}, "chat"))
    body = compose_plan(Bundle(features, limits, rates), KINDS, METERS)
    assert body.rates == rates
    assert [(f.key, f.kind, f.enabled, f.value) for f in body.features] == [
        ("chat", FeatureKind.METERED, True, None),
        ("sso", FeatureKind.BOOLEAN, False, None),
        ("model", FeatureKind.STATIC, True, "large"),
    ]
    assert decode_plan(encode_plan(body)) == body


@pytest.mark.parametrize(
    ("limit", "field"),
    [
        (change(meter="tokns"), "limits[0].meter"),
        (change(feature="chatt"), "limits[0].feature"),
        (change(at_end=LimitEnd.OVERAGE), "limits[0].overage_max"),
        (change(at_end=LimitEnd.THROTTLE, overage_max=1), "limits[0].overage_max"),
        (change(overage_max=1), "limits[0].overage_max"),
        (change(at_end=LimitEnd.OVERAGE, overage_max=1, amount=None), "limits[0].at_end"),
        (change(at_end=LimitEnd.OVERAGE, overage_max=1, amount=QUANTITY_MAX), "limits[0].overage_max"),
        (change(window=WindowKind.REQUEST, at_end=LimitEnd.THROTTLE), "limits[0].at_end"),
        (change(scope=Scope.TAG), "limits[0].scope_tag"),
        (change(scope=Scope.USER, scope_tag="team"), "limits[0].scope_tag"),
        (change(window=WindowKind.IN_FLIGHT, amount=None), "limits[0].amount"),
        (change(window=WindowKind.IN_FLIGHT, at_end=LimitEnd.OVERAGE, overage_max=1), "limits[0].at_end"),
        (change(window=WindowKind.IN_FLIGHT, smooth=True), "limits[0].smooth"),
        (change(window=WindowKind.MONTH, smooth=True), "limits[0].smooth"),
        (change(window=WindowKind.REQUEST, smooth=True), "limits[0].smooth"),
        (change(smooth=True, amount=None), "limits[0].amount"),
        (change(smooth=True, burst=0), "limits[0].burst"),
        (change(smooth=True, at_end=LimitEnd.OVERAGE, overage_max=1), "limits[0].at_end"),
        (change(burst=5), "limits[0].burst"),
        (change(in_flight=InFlight.FINISH), "limits[0].overage_max"),
        (change(in_flight=InFlight.FINISH, overage_max=1, at_end=LimitEnd.OVERAGE), "limits[0].at_end"),
        (change(in_flight=InFlight.FINISH, overage_max=1, amount=None), "limits[0].in_flight"),
        (change(in_flight=InFlight.FINISH, overage_max=1, smooth=True), "limits[0].in_flight"),
        (change(in_flight=InFlight.FINISH, overage_max=1, window=WindowKind.REQUEST), "limits[0].in_flight"),
        (change(in_flight=InFlight.FINISH, overage_max=1, window=WindowKind.IN_FLIGHT), "limits[0].in_flight"),
        (change(batch_floor=11), "limits[0].batch_floor"),
        (change(batch_floor=1, amount=None), "limits[0].batch_floor"),
        (change(batch_floor=1, window=WindowKind.REQUEST), "limits[0].batch_floor"),
        (change(by_role={"r" * 128: 5}), "limits[0].by_role"),
        (change(by_role={"admin": 5}, roles=("admin",)), "limits[0].by_role"),
        (change(feature="f" * 128, scope=Scope.TAG, scope_tag="t" * 128, meter="m" * 128), "limits[0]"),
        (change(per_seat=True, amount=None), "limits[0].per_seat"),
        (change(prorate=True, window=WindowKind.LIFETIME), "limits[0].prorate"),
        (change(prorate=True, by_role={"admin": 5}), "limits[0].prorate"),
        (change(shadow=True, window=WindowKind.IN_FLIGHT), "limits[0].shadow"),
        (change(thresholds=(80, 50)), "limits[0].thresholds"),
        (change(thresholds=(80,), amount=None), "limits[0].thresholds"),
        (change(overage_price=Price(1, "EUR")), "limits[0].overage_price"),
        (change(window=WindowKind.GRANTS), "limits[0].amount"),
        (change(window=WindowKind.GRANTS, amount=0, scope=Scope.USER), "limits[0]"),
        (change(window=WindowKind.GRANTS, amount=0, at_end=LimitEnd.THROTTLE), "limits[0].at_end"),
    ],
)
def test_a_limit_that_breaks_a_rule_is_named(limit: PlanLimit, field: str) -> None:
    assert refusal(limits=(limit,)) == field


def test_two_limits_may_share_neither_name_nor_counter() -> None:
    assert refusal(limits=(DAY, change(window=WindowKind.MONTH))) == "limits[1].key"
    assert refusal(limits=(DAY, change(key="b", amount=7))) == "limits[1]"


@pytest.mark.parametrize(
    ("features", "field"),
    [
        ((PlanFeature("fax"),), "features[0].feature"),
        ((PlanFeature("sso"), PlanFeature("sso")), "features[1].feature"),
        ((PlanFeature("sso", value=True),), "features[0].value"),
        ((PlanFeature("model"),), "features[0].value"),
        ((PlanFeature("model", value=2**60),), "features[0].value"),
    ],
)
def test_a_feature_that_breaks_a_rule_is_named(features: tuple[PlanFeature, ...], field: str) -> None:
    assert refusal(features=features) == field


@pytest.mark.parametrize(
    ("rates", "field"),
    [
        ((Rate("creditz", {"images": 1}),), "rates[0].meter"),
        ((Rate("requests", {"images": 1}),), "rates[0].meter"),
        ((Rate("credits", {"imagez": 1}),), "rates[0].weights.imagez"),
        ((Rate("credits", {"images": 1}, "fax"),), "rates[0].feature"),
        ((Rate("credits", {"credits": 1}),), "rates[0].weights.credits"),
        ((Rate("credits", {"points": 1}), Rate("points", {"images": 1})), "rates[0].weights.points"),
        ((Rate("credits", {"images": 1}), Rate("credits", {"images": 2})), "rates[1]"),
        ((Rate("credits", {"images": 1}, "chat"), Rate("credits", {"images": 2}, "chat")), "rates[1]"),
        ((Rate("credits", {"images": 1}, model="m"), Rate("credits", {"images": 2}, model="M")), "rates[1]"),
        ((Rate("credits", {"images": 1}, model=" m"),), "rates[0].model"),
        ((Rate("credits", {"images": 1}, classes={"cache_read": 1}),), "rates[0].classes.cache_read"),
        ((Rate("credits", {"images": 1}, book="standard@1"),), "rates[0].book"),
    ],
)
def test_a_rate_that_breaks_a_rule_is_named(rates: tuple[Rate, ...], field: str) -> None:
    assert refusal(rates=rates) == field


def test_a_plan_is_bounded() -> None:
    assert refusal(rates=tuple(Rate("credits", {"images": 1}) for _ in range(RATES_MAX + 1))) == "rates"
    assert refusal(features=tuple(PlanFeature("chat") for _ in range(FEATURES_MAX + 1))) == "features"
    assert refusal(limits=tuple(change(key=f"l{i}") for i in range(LIMITS_MAX + 1))) == "limits"


@pytest.mark.parametrize(
    ("grants", "field"),
    [
        ((PlanGrant("a", "nothing", 5),), "grants[0].meter"),
        ((PlanGrant("a", "credits", 5), PlanGrant("a", "credits", 6)), "grants[1].key"),
        ((PlanGrant("a", "credits", 5, WindowKind.MINUTE),), "grants[0].every"),
        ((PlanGrant("a", "credits", 5, WindowKind.LIFETIME, rollover_max=5),), "grants[0].rollover_max"),
        ((PlanGrant("a", "credits", 5, rollover_min=9, rollover_max=5),), "grants[0].rollover_min"),
    ],
)
def test_credit_that_breaks_a_rule_is_named(grants: tuple[PlanGrant, ...], field: str) -> None:
    with pytest.raises(Violation) as caught:
        compose_plan(Bundle(grants=grants), KINDS, METERS)
    assert caught.value.field == field
