"""A static feature may be any JSON value that every program on the way can read; what it may not be is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.catalog import compose_plan, decode_plan, encode_plan
from control_plane.core.combining import Combine, features
from control_plane.core.feature_values import VALUE_BYTES_MAX, VALUE_DEPTH_MAX, VALUES_BYTES_MAX, alike
from control_plane.core.plans import Bundle, PlanBody, PlanFeature
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.entitlements import CustomerStatus, Entitlement, Feature, FeatureKind, RoleTerms
from protocol.units import QUANTITY_MAX
from protocol.violations import Violation

STATIC = FeatureKind.STATIC


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


scalars = (
    st.booleans()
    | st.integers(-QUANTITY_MAX, QUANTITY_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
values = st.recursive(
    scalars | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("ab.[]\n\u20ac", max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
).filter(lambda value: value is not None and depth(value) <= VALUE_DEPTH_MAX)


def publish(value: Any, role: Any = None) -> PlanBody:
    by_role = {} if role is None else {"intern": RoleTerms(value=role)}
    return compose_plan(Bundle((PlanFeature("model", True, value, by_role),)), {"model": STATIC}, set())


def refusal(value: Any, role: Any = None) -> Violation:
    with pytest.raises(Violation) as caught:
        publish(value, role)
    return caught.value


def nested(depth: int, inside: Any = 1) -> Any:
    return inside if depth == 0 else [nested(depth - 1, inside)]


@given(values, values)
def test_it_reaches_the_agent_as_its_author_wrote_it(value: Any, role: Any) -> None:
    body = decode_plan(encode_plan(publish(value, role)))
    entitlement = Entitlement("acme", 1, CustomerStatus.ACTIVE, features=body.features)
    (arrived,) = MsgpackDecoder(Entitlement)(encode_msgpack(entitlement)).features
    for sent, got in ((value, arrived.terms(None).value), (role, arrived.terms("intern").value)):
        assert json.dumps(got) == json.dumps(sent), "true is not 1, 1 is not 1.0, and lists keep their order"


@pytest.mark.parametrize(
    ("value", "field", "problem"),
    [
        (2**53, "features[0].value", "is 9007199254740992"),
        (-(2**70), "features[0].value", "is -1180591620717411303424"),
        (10**200, "features[0].value", "is too large"),
        ({"limits": [1, {"max": 2**63}]}, "features[0].value.limits[1].max", "is 9223372036854775808"),
        ([float("inf")], "features[0].value[0]", "is inf"),
        ({"a": float("nan")}, "features[0].value.a", "is nan"),
        (nested(VALUE_DEPTH_MAX + 1), "features[0].value" + "[0]" * VALUE_DEPTH_MAX, "is nested too deeply"),
        ("x" * (VALUE_BYTES_MAX - 1), "features[0].value", "takes 4097 bytes as JSON"),
        (["\u20ac" * 2_000], "features[0].value", "takes 6004 bytes as JSON"),
    ],
)
def test_a_value_out_of_bounds_is_named(value: Any, field: str, problem: str) -> None:
    wrong = refusal(value)
    assert (wrong.field, wrong.problem) == (field, problem)
    assert wrong.expected
    assert refusal(1, role=value).field == field.replace("features[0]", "features[0].by_role.intern", 1)


@pytest.mark.parametrize("value", [nested(VALUE_DEPTH_MAX), "x" * (VALUE_BYTES_MAX - 2), [None], {}, [], "", 0, 0.5])
def test_a_value_within_the_bounds_is_taken(value: Any) -> None:
    assert publish(value).features[0].value == value


def test_values_are_bounded_together() -> None:
    count = VALUES_BYTES_MAX // 4_000 + 1
    many = tuple(PlanFeature(f"f{i}", value="x" * 4_000) for i in range(count))
    with pytest.raises(Violation, match="together") as caught:
        compose_plan(Bundle(many), {one.feature: STATIC for one in many}, set())
    assert caught.value.field == "features"


def test_plans_are_the_same_whatever_the_order_in_maps_and_true_is_not_one() -> None:
    assert alike(publish({"a": 1, "b": 2}), publish({"b": 2, "a": 1}))
    assert not alike(publish([1, 2]), publish([2, 1]))
    assert not alike(publish({"a": 1}), publish({"a": True}))
    assert not alike(publish(1), publish(1.0))


def combined(rule: Combine, *found: Any) -> Any:
    bodies = [(PlanBody((Feature("model", STATIC, True, value),)), f"n{at}", 1) for at, value in enumerate(found)]
    (one,) = features(bodies, {"feature:model": rule}, {})
    return one.value


@pytest.mark.parametrize(
    ("found", "by_sum", "by_max", "by_min"),
    [
        ((90, 365), 455, 365, 90),
        ((0.1, 0.2), 0.3, 0.2, 0.1),
        ((2, 0.5), 2.5, 2, 0.5),
        ((QUANTITY_MAX, 5), QUANTITY_MAX, QUANTITY_MAX, 5),
        ((1e308, 1e308), 1e308, 1e308, 1e308),
        ((True, False), True, True, False),
        ((True, 5), True, True, True),
        (("small", "large"), "small", "small", "small"),
        ((["a"], ["b"]), ["a"], ["a"], ["a"]),
        (({"a": 1}, 7), {"a": 1}, {"a": 1}, {"a": 1}),
    ],
)
def test_numbers_and_switches_are_combined_and_of_all_else_the_plans_value_counts(
    found: tuple[Any, Any], by_sum: Any, by_max: Any, by_min: Any
) -> None:
    for rule, expected in ((Combine.SUM, by_sum), (Combine.MAX, by_max), (Combine.MIN, by_min)):
        assert json.dumps(combined(rule, *found)) == json.dumps(expected)
