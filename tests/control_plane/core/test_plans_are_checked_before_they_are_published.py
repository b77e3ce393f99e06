"""A plan that breaks a rule of the catalog is refused, and the refusal names the field."""

from __future__ import annotations

import msgspec
import pytest

from control_plane.core.catalog import PlanFeature, compose_plan, decode_plan, encode_plan
from protocol.entitlements import FEATURES_MAX, LIMITS_MAX, FeatureKind, Limit, LimitEnd, Scope
from protocol.units import QUANTITY_MAX
from protocol.violations import Violation
from protocol.windows import WindowKind

KINDS = {"chat": FeatureKind.METERED, "sso": FeatureKind.BOOLEAN, "model": FeatureKind.STATIC}
METERS = {"images"}
DAY = Limit("a", "images", 10, WindowKind.DAY)


def change(**fields: object) -> Limit:
    return msgspec.structs.replace(DAY, **fields)


def refusal(features: tuple[PlanFeature, ...] = (), limits: tuple[Limit, ...] = ()) -> str:
    with pytest.raises(Violation) as caught:
        compose_plan(features, limits, KINDS, METERS)
    return caught.value.field


def test_a_plan_that_keeps_the_rules_is_composed_and_survives_storage() -> None:
    features = (PlanFeature("chat"), PlanFeature("sso", enabled=False), PlanFeature("model", value="large"))
    limits = (
        DAY,
        change(key="b", window=WindowKind.REQUEST, amount=0),
        change(key="c", meter="requests", at_end=LimitEnd.OVERAGE, overage_max=5),
        change(key="d", scope=Scope.USER, amount=None, feature="chat"),
    )
    body = compose_plan(features, limits, KINDS, METERS)
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
    ],
)
def test_a_limit_that_breaks_a_rule_is_named(limit: Limit, field: str) -> None:
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


def test_a_plan_is_bounded() -> None:
    assert refusal(features=tuple(PlanFeature("chat") for _ in range(FEATURES_MAX + 1))) == "features"
    assert refusal(limits=tuple(change(key=f"l{i}") for i in range(LIMITS_MAX + 1))) == "limits"
