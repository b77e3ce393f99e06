"""What a plan says, and the rules that a plan must keep before it is published."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from typing import Annotated

import msgspec

from control_plane.core.limit_rules import limit_violations
from control_plane.core.rate_rules import rate_violations
from protocol.entitlements import FEATURES_MAX, LIMITS_MAX, RATES_MAX, Feature, FeatureKind, Limit, Rate
from protocol.ids import Key
from protocol.units import INPUT_TOKENS, OUTPUT_TOKENS, QUANTITY_MAX, REQUESTS
from protocol.violations import Violation

BUILT_IN_METERS = {REQUESTS: "requests", INPUT_TOKENS: "tokens", OUTPUT_TOKENS: "tokens"}
"""Meters that exist without being declared, and their units."""

FeatureValue = Annotated[str, msgspec.Meta(max_length=4096)] | int | bool | None


class PlanFeature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One feature of a plan as its author writes it; the feature's kind comes from the catalog.

    Attributes:
        enabled: whether the plan includes it.
        value: what a static feature is set to; other kinds have none.
    """

    feature: Key
    enabled: bool = True
    value: FeatureValue = None


class PlanBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published plan version: never changes once written, so it names the kinds of its features itself."""

    features: tuple[Feature, ...] = ()
    limits: tuple[Limit, ...] = ()
    rates: tuple[Rate, ...] = ()


def compose_plan(
    features: tuple[PlanFeature, ...],
    limits: tuple[Limit, ...],
    kinds: Mapping[str, FeatureKind],
    meters: set[str],
    rates: tuple[Rate, ...] = (),
) -> PlanBody:
    """The body of a plan from what its author wrote, checked against the catalog.

    Args:
        kinds: every feature of the catalog and its kind.
        meters: every declared meter; the built-in ones need no declaration.

    Raises: Violation: the first rule it breaks, naming ``limits[2].meter`` and what would be right.
    """
    for name, entries, most in (
        ("features", features, FEATURES_MAX),
        ("limits", limits, LIMITS_MAX),
        ("rates", rates, RATES_MAX),
    ):
        if len(entries) > most:
            raise Violation(name, f"has {len(entries)} entries", f"at most {most}")
    known = meters | BUILT_IN_METERS.keys()
    seen: set[str] = set()
    for index, feature in enumerate(features):
        _check_feature(f"features[{index}]", feature, kinds, seen)
    for violation in chain(limit_violations(limits, kinds, known), rate_violations(rates, kinds, known, meters)):
        raise violation
    composed = tuple(Feature(f.feature, kinds[f.feature], f.enabled, f.value) for f in features)
    return PlanBody(features=composed, limits=limits, rates=rates)


def _check_feature(path: str, feature: PlanFeature, kinds: Mapping[str, FeatureKind], seen: set[str]) -> None:
    kind = kinds.get(feature.feature)
    if kind is None:
        raise Violation(
            f"{path}.feature", f"names the unknown feature {feature.feature!r}", "one that is in the catalog"
        )
    if feature.feature in seen:
        raise Violation(f"{path}.feature", f"names {feature.feature!r} a second time", "each feature once")
    seen.add(feature.feature)
    if kind is not FeatureKind.STATIC and feature.value is not None:
        raise Violation(f"{path}.value", f"is given for a {kind.value} feature", "a value for static features only")
    if kind is FeatureKind.STATIC and feature.enabled and feature.value is None:
        raise Violation(f"{path}.value", "is missing", "the value of a static feature")
    if isinstance(feature.value, int) and abs(feature.value) > QUANTITY_MAX:
        raise Violation(f"{path}.value", f"is {feature.value}", f"at most {QUANTITY_MAX} either way")


def encode_plan(body: PlanBody) -> str:
    """The canonical text of a plan's body: equal plans have equal texts."""
    return msgspec.json.encode(body).decode()


@lru_cache(maxsize=1024)
def decode_plan(text: str) -> PlanBody:
    """The body of a plan from its stored text; the same text gives the same (immutable) object."""
    return msgspec.json.decode(text, type=PlanBody)
